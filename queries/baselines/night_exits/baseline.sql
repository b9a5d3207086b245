-- How often this person leaves the bed in a night (22 to 6 by the home's clock): the mean of the last 28 nights and two standard deviations
-- more (that reach is our own proposal). Needs fourteen nights with an exit. Nights without any count for nothing: a person who was not there
-- and one who slept through look alike.
WITH exits AS (
  SELECT e.home_id, e.bed_id, e.started_at, e.start_known_at,
    date_part('hour', local_time(e.started_at, h.time_zone)) AS left_hour,
    date_trunc('day', local_time(plus_minutes(e.started_at, -720.0), h.time_zone)) AS night
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'out_of_bed' AND e.bed_id IS NOT NULL
),
nights AS (
  SELECT home_id, bed_id, night, count(*) AS n, max(start_known_at) AS known_at, min(started_at) AS first_at, max(started_at) AS last_at
  FROM exits
  WHERE left_hour >= 22 OR left_hour < 6
  GROUP BY home_id, bed_id, night
),
-- Visits, hospital, mechanics and the like teach nothing, as soon as somebody has entered them; nor do nights of which a part was not seen.
said AS (
  SELECT n.home_id, n.bed_id, n.night, min(u.known_at) AS said_at
  FROM nights n
  JOIN unusual u ON u.kind <> 'empty' AND u.home_id = n.home_id AND (u.bed_id IS NULL OR u.bed_id = n.bed_id)
    AND u.started_at < n.last_at AND u.ended_at > n.first_at
  GROUP BY n.home_id, n.bed_id, n.night
)
SELECT n.home_id, n.bed_id, CAST(NULL AS VARCHAR) AS key, CAST(NULL AS BIGINT) AS slot, a.known_at,
  avg(CAST(n.n AS DOUBLE)) + 2.0 * stddev_samp(CAST(n.n AS DOUBLE)) AS value, count(*) AS n_days
FROM (SELECT DISTINCT home_id, known_at FROM asked) a
JOIN nights n ON n.home_id = a.home_id AND n.known_at <= a.known_at AND n.first_at > plus_minutes(a.known_at, -41040.0)
    -- The night in which this midnight lies is not over.
    AND n.first_at <= plus_minutes(a.known_at, -720.0)
LEFT JOIN said s ON s.home_id = n.home_id AND s.bed_id = n.bed_id AND s.night = n.night
WHERE s.said_at IS NULL OR s.said_at > a.known_at
GROUP BY n.home_id, n.bed_id, a.known_at
HAVING count(*) >= 14
