-- A restless night: out of bed more than four times, and more than is usual for this person (baselines/night_exits), between 22:00 and 06:00 by the home's clock. One finding a night, at the exit that is one
-- too many; over in the morning. Own number of a home: exits.
WITH limits AS (
  SELECT h.home_id, h.time_zone, least($now, h.complete_to) AS known_to,
    max(CASE WHEN p.key = 'exits' THEN p.value END) AS limit_exits
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'night_unrest'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.time_zone, h.complete_to
),
exits AS (
  SELECT e.home_id, e.bed_id, e.started_at, e.start_known_at, l.known_to, l.limit_exits,
    next_at_hour(e.started_at, l.time_zone, 6.0) AS morning,
    date_part('hour', local_time(e.started_at, l.time_zone)) AS local_hour
  FROM episodes e
  JOIN limits l ON l.home_id = e.home_id
  WHERE e.kind = 'out_of_bed'
),
numbered AS (
  SELECT *,
    row_number() OVER (PARTITION BY home_id, bed_id, morning ORDER BY started_at) AS n,
    min(started_at) OVER (PARTITION BY home_id, bed_id, morning) AS first_exit_at
  FROM exits
  WHERE local_hour >= 22 OR local_hour < 6
),
limited AS (
  SELECT n.*, u.value AS own
  FROM numbered n
  -- As it was known before the night began.
  LEFT JOIN usual u ON u.baseline = 'night_exits' AND u.home_id = n.home_id AND u.bed_id = n.bed_id
    AND u.known_at <= plus_minutes(n.morning, -480.0) AND u.known_until > plus_minutes(n.morning, -480.0)
)
SELECT CASE WHEN bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
  coalesce(bed_id, home_id) AS subject_id, home_id, start_known_at AS raised_at,
  CASE WHEN greatest(morning, start_known_at) <= known_to THEN greatest(morning, start_known_at) END AS cleared_at,
  n AS exits, first_exit_at
FROM limited
WHERE n = CAST(floor(greatest(coalesce(limit_exits, greatest(own, 4.0), 4.0), 1.0)) AS bigint) + 1
  AND start_known_at <= known_to
