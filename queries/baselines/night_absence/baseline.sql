-- How long this person's own absences from bed last at night (22 to 6 by the home's clock): the 97th percentile of the last 30 nights, a third
-- more, between 15 and 60 minutes (the form is Cuddihy's). Needs seven nights with an absence.
WITH exits AS (
  SELECT e.home_id, e.bed_id, e.started_at, e.end_known_at, minutes_between(e.started_at, e.ended_at) AS minutes,
    date_part('hour', local_time(e.started_at, h.time_zone)) AS left_hour,
    date_trunc('day', local_time(plus_minutes(e.started_at, -720.0), h.time_zone)) AS night
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'out_of_bed' AND e.ended_at IS NOT NULL AND e.bed_id IS NOT NULL
),
-- Whoever was away, in hospital or had a visitor teaches nothing, as soon as it is known.
said AS (
  SELECT x.home_id, x.bed_id, x.started_at, min(u.known_at) AS said_at
  FROM exits x
  JOIN unusual u ON u.home_id = x.home_id AND (u.bed_id IS NULL OR u.bed_id = x.bed_id)
    AND u.started_at < plus_minutes(x.started_at, x.minutes) AND u.ended_at > x.started_at
  GROUP BY x.home_id, x.bed_id, x.started_at
)
SELECT x.home_id, x.bed_id, CAST(NULL AS VARCHAR) AS key, CAST(NULL AS BIGINT) AS slot, a.known_at,
  least(greatest(1.3 * percentile_cont(x.minutes, 0.97), 15.0), 60.0) AS value, count(DISTINCT x.night) AS n_days
FROM (SELECT DISTINCT home_id, known_at FROM asked) a
JOIN exits x ON x.home_id = a.home_id AND x.end_known_at <= a.known_at AND x.started_at > plus_minutes(a.known_at, -43200.0)
LEFT JOIN said s ON s.home_id = x.home_id AND s.bed_id = x.bed_id AND s.started_at = x.started_at
WHERE (x.left_hour >= 22 OR x.left_hour < 6) AND (s.said_at IS NULL OR s.said_at > a.known_at)
GROUP BY x.home_id, x.bed_id, a.known_at
HAVING count(DISTINCT x.night) >= 7
