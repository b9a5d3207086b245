-- Between which heart and breathing rates this person's last 14 nights lie (`key` 'heart_rate/high', 'respiratory_rate/low' and so on): the mean of
-- all values in bed at night, and two standard deviations to either side. (Median and three times the median deviation are the same of values that
-- are spread evenly about their mean, and cannot be put together from nights.) Needs seven nights of a hundred values and more.
WITH nights AS (
  SELECT e.home_id, e.bed_id, e.started_at, e.ended_at, e.end_known_at, e.attributes,
    date_trunc('day', local_time(plus_minutes(e.started_at, -720.0), h.time_zone)) AS night
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id
  -- From six in the evening to noon: an afternoon's nap is no night.
  WHERE e.kind = 'in_bed' AND e.ended_at IS NOT NULL AND e.bed_id IS NOT NULL AND e.attributes IS NOT NULL
    AND date_part('hour', local_time(plus_minutes(e.started_at, -720.0), h.time_zone)) >= 6
),
-- Hospital, visits, mechanics, and what really was the matter teach nothing, as soon as somebody has entered it.
said AS (
  SELECT n.home_id, n.bed_id, n.started_at, min(u.known_at) AS said_at
  FROM nights n
  JOIN unusual u ON u.kind NOT IN ('empty', 'unobserved') AND u.home_id = n.home_id AND (u.bed_id IS NULL OR u.bed_id = n.bed_id)
    AND u.started_at < n.ended_at AND u.ended_at > n.started_at
  GROUP BY n.home_id, n.bed_id, n.started_at
),
known AS (
  SELECT n.*, s.said_at
  FROM nights n
  LEFT JOIN said s ON s.home_id = n.home_id AND s.bed_id = n.bed_id AND s.started_at = n.started_at
),
figures AS (
  SELECT k.home_id, k.bed_id, k.started_at, k.end_known_at, k.night, k.said_at, q.quantity,
    CAST(attribute(k.attributes, q.quantity) AS DOUBLE) AS mean,
    CAST(attribute(k.attributes, q.quantity || '_sd') AS DOUBLE) AS deviation,
    CAST(attribute(k.attributes, q.quantity || '_n') AS DOUBLE) AS n
  FROM known k
  CROSS JOIN unnest(['heart_rate', 'respiratory_rate']) AS q(quantity)
),
lately AS (
  SELECT f.home_id, f.bed_id, f.quantity, a.known_at, f.night, sum(f.n) AS n, sum(f.n * f.mean) AS total,
    sum(f.n * (f.deviation * f.deviation + f.mean * f.mean)) AS squares
  FROM (SELECT DISTINCT home_id, known_at FROM asked) a
  JOIN figures f ON f.home_id = a.home_id AND f.end_known_at <= a.known_at AND f.started_at > plus_minutes(a.known_at, -20880.0)
    -- The night in which this midnight lies is not over.
    AND f.started_at <= plus_minutes(a.known_at, -720.0)
  WHERE f.mean IS NOT NULL AND (f.said_at IS NULL OR f.said_at > a.known_at)
  GROUP BY f.home_id, f.bed_id, f.quantity, a.known_at, f.night
  HAVING sum(f.n) >= 100
),
spread AS (
  SELECT home_id, bed_id, quantity, known_at, sum(total) / sum(n) AS mean, count(*) AS n_days,
    sqrt(greatest(sum(squares) / sum(n) - power(sum(total) / sum(n), 2), 0.0)) AS deviation
  FROM lately
  GROUP BY home_id, bed_id, quantity, known_at
  HAVING count(*) >= 7
)
SELECT home_id, bed_id, quantity || '/high' AS "key", CAST(NULL AS BIGINT) AS slot, known_at, mean + 2.0 * deviation AS value, n_days FROM spread
UNION ALL
SELECT home_id, bed_id, quantity || '/low', NULL, known_at, mean - 2.0 * deviation, n_days FROM spread
