-- What a water meter says: less than 10 litres in 12 hours though nobody is out (most pressing), more than 2 cubic metres in a day, or some in
-- every half hour of a day. Limits: see episodes/water_*.toml.
WITH limits AS (
  SELECT h.home_id, least($now, h.complete_to) AS known_to
  FROM homes h
  WHERE h.complete_to IS NOT NULL
),
uses AS (
  SELECT e.home_id, e.kind, e.started_at, e.start_known_at AS raised_at, e.end_known_at, l.known_to
  FROM episodes e
  JOIN limits l ON l.home_id = e.home_id
  WHERE e.kind IN ('water_little', 'water_much', 'water_running')
),
-- Whoever was out for a part of these hours used none then.
out AS (
  SELECT home_id, start_known_at AS known_at, started_at, ended_at FROM episodes WHERE kind = 'away'
  UNION ALL
  SELECT home_id, entered_at, started_at, ended_at FROM intervals WHERE kind = 'away'
)
SELECT 'home' AS subject_kind, u.home_id AS subject_id, u.home_id, u.raised_at,
  CASE WHEN u.end_known_at <= u.known_to THEN u.end_known_at END AS cleared_at,
  u.kind AS trouble,
  CASE u.kind WHEN 'water_little' THEN plus_minutes(u.started_at, -720.0) WHEN 'water_much' THEN plus_minutes(u.started_at, -1440.0)
    ELSE u.started_at END AS since,
  CASE u.kind WHEN 'water_little' THEN 'P2' ELSE 'P3' END AS priority
FROM uses u
WHERE u.raised_at <= u.known_to
  AND (u.end_known_at IS NULL OR u.end_known_at > u.raised_at)
  AND NOT (u.kind = 'water_little' AND EXISTS (
    SELECT 1 FROM out o
    WHERE o.home_id = u.home_id AND o.known_at <= u.raised_at AND o.started_at <= u.raised_at
      AND (o.ended_at IS NULL OR o.ended_at > plus_minutes(u.raised_at, -720.0))))
