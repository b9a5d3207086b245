-- What a water meter says: less than 10 litres in 12 hours though nobody is out (most pressing), more than 2 cubic metres in a day, or some in
-- every half hour of a day. Limits: see episodes/water_*.toml.
-- Own limits (baselines/water): who often uses less than 10 litres is told of below 3; who hardly ever uses more than half a cubic metre, or
-- one, is told of above that, for the daily list.
WITH limits AS (
  SELECT h.home_id, least($now, h.complete_to) AS known_to
  FROM homes h
  WHERE h.complete_to IS NOT NULL
),
rungs AS (
  SELECT e.home_id, e.kind, e.started_at, e.start_known_at AS raised_at, e.end_known_at, l.known_to,
    -- As it was known when it began; of a home that is not known yet the published limits hold.
    coalesce(max(CASE WHEN u.key = 'water_little' THEN u.value END), 0.0) <= 0.03 AS little_is_odd,
    max(CASE WHEN u.key = 'water_raised' THEN u.value END) <= 0.01 AS raised_is_odd,
    max(CASE WHEN u.key = 'water_high' THEN u.value END) <= 0.01 AS high_is_odd
  FROM episodes e
  JOIN limits l ON l.home_id = e.home_id
  LEFT JOIN usual u ON u.baseline = 'water' AND u.home_id = e.home_id
    AND u.known_at <= e.started_at AND u.known_until > e.started_at
  WHERE e.kind IN ('water_little', 'water_very_little', 'water_raised', 'water_high', 'water_much', 'water_running')
  GROUP BY e.home_id, e.kind, e.started_at, e.start_known_at, e.end_known_at, l.known_to
),
uses AS (
  SELECT * FROM rungs
  WHERE CASE kind
    WHEN 'water_little' THEN little_is_odd
    WHEN 'water_very_little' THEN NOT little_is_odd
    WHEN 'water_raised' THEN coalesce(raised_is_odd, false)
    WHEN 'water_high' THEN coalesce(high_is_odd AND NOT raised_is_odd, false)
    ELSE true END
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
  CASE WHEN u.kind LIKE '%_little' THEN plus_minutes(u.started_at, -720.0) WHEN u.kind = 'water_running' THEN u.started_at
    ELSE plus_minutes(u.started_at, -1440.0) END AS since,
  CASE WHEN u.kind LIKE '%_little' THEN 'P2' WHEN u.kind IN ('water_raised', 'water_high') THEN 'P4' ELSE 'P3' END AS priority
FROM uses u
WHERE u.raised_at <= u.known_to
  AND (u.end_known_at IS NULL OR u.end_known_at > u.raised_at)
  AND NOT (u.kind LIKE '%_little' AND EXISTS (
    SELECT 1 FROM out o
    WHERE o.home_id = u.home_id AND o.known_at <= u.raised_at AND o.started_at <= u.raised_at
      AND (o.ended_at IS NULL OR o.ended_at > plus_minutes(u.raised_at, -720.0))))
