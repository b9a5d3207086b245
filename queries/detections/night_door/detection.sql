-- The front door at night, between 22:00 and 06:00 by the home's clock: it stands open for 5 minutes, or somebody went out and nothing has
-- moved inside since (that is known after 15 minutes). For people who wander (key 'wanders', value 1) at once when it opens.
-- Own number of a home: open_minutes.
WITH limits AS (
  SELECT h.home_id, h.time_zone, least($now, h.complete_to) AS known_to,
    greatest(coalesce(max(CASE WHEN p.key = 'open_minutes' THEN p.value END), 5.0), 0.0) AS open_minutes,
    coalesce(max(CASE WHEN p.key = 'wanders' THEN p.value END), 0.0) >= 0.5 AS wanders
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'night_door'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.time_zone, h.complete_to
),
doors AS (
  SELECT d.home_id, d.started_at, d.start_known_at, d.end_known_at, l.known_to, l.wanders,
    date_part('hour', local_time(d.started_at, l.time_zone)) AS local_hour,
    d.kind = 'away' AS went_out,
    CASE WHEN d.kind = 'door_open' AND NOT l.wanders
      THEN greatest(plus_minutes(d.started_at, l.open_minutes), d.start_known_at)
      ELSE d.start_known_at END AS raised_at
  FROM episodes d
  JOIN limits l ON l.home_id = d.home_id
  WHERE d.kind IN ('door_open', 'away')
)
SELECT 'home' AS subject_kind, home_id AS subject_id, home_id, raised_at,
  CASE WHEN end_known_at <= known_to THEN end_known_at END AS cleared_at,
  started_at AS opened_at, went_out,
  CASE WHEN wanders THEN 'P1' ELSE 'P2' END AS priority
FROM doors
WHERE (local_hour >= 22 OR local_hour < 6)
  AND raised_at <= known_to
  AND (end_known_at IS NULL OR end_known_at > raised_at)
