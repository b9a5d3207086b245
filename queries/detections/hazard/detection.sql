-- Smoke or gas: at once, whatever else of the home's data is still missing. Water where none should be: after a minute of it. A room
-- colder than 12 or hotter than 35 degrees for an hour.
WITH hazards AS (
  SELECT e.home_id, e.device_id, e.room, e.kind, e.started_at, e.end_known_at,
    least($now, h.complete_to) AS known_to,
    e.kind IN ('smoke', 'gas') AS at_once,
    CASE WHEN e.kind = 'water_leak' THEN plus_minutes(e.started_at, 1.0) ELSE e.start_known_at END AS raised_at
  FROM episodes e
  LEFT JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind IN ('smoke', 'gas', 'water_leak', 'room_cold', 'room_hot')
)
SELECT 'device' AS subject_kind, device_id AS subject_id, home_id, raised_at,
  CASE WHEN end_known_at <= known_to THEN end_known_at END AS cleared_at,
  kind AS hazard, room, started_at AS since,
  CASE WHEN at_once THEN 'P1' ELSE 'P2' END AS priority
FROM hazards
WHERE at_once
  OR (raised_at <= known_to AND (end_known_at IS NULL OR end_known_at > raised_at))
