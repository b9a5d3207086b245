-- Figures of the nights that have changed (`key`: heart_rate, respiratory_rate, sleep_hours, exits): three of the last five nights lie more than
-- two standard deviations from the mean of the 28 before them (our own proposal). `value` is their mean lately; beside it stands, under the key
-- with `/usual` behind it, what it was. Needs fourteen nights to compare with. And `days_indoors`: nobody has gone out for longer than 99 of 100
-- times in the last 60 days, two days at least; needs twenty outings.
WITH stays AS (
  SELECT e.home_id, e.bed_id, e.started_at, e.ended_at, e.end_known_at,
    date_trunc('day', local_time(plus_minutes(e.started_at, -720.0), h.time_zone)) AS night,
    minutes_between(e.started_at, e.ended_at) / 60.0 AS hours,
    CAST(attribute(e.attributes, 'heart_rate') AS DOUBLE) AS heart_rate,
    CAST(attribute(e.attributes, 'heart_rate_n') AS DOUBLE) AS heart_rate_n,
    CAST(attribute(e.attributes, 'respiratory_rate') AS DOUBLE) AS respiratory_rate,
    CAST(attribute(e.attributes, 'respiratory_rate_n') AS DOUBLE) AS respiratory_rate_n
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id
  -- From six in the evening to noon: an afternoon's nap is no night.
  WHERE e.kind = 'in_bed' AND e.ended_at IS NOT NULL AND e.bed_id IS NOT NULL
    AND date_part('hour', local_time(plus_minutes(e.started_at, -720.0), h.time_zone)) >= 6
),
nights AS (
  SELECT home_id, bed_id, night, min(started_at) AS first_at, max(ended_at) AS last_at, max(end_known_at) AS known_at, sum(hours) AS hours,
    sum(heart_rate * heart_rate_n) / sum(heart_rate_n) AS heart_rate,
    sum(respiratory_rate * respiratory_rate_n) / sum(respiratory_rate_n) AS respiratory_rate
  FROM stays
  GROUP BY home_id, bed_id, night
),
exits AS (
  SELECT e.home_id, e.bed_id, date_trunc('day', local_time(plus_minutes(e.started_at, -720.0), h.time_zone)) AS night,
    CAST(count(*) AS DOUBLE) AS n
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'out_of_bed' AND date_part('hour', local_time(plus_minutes(e.started_at, -720.0), h.time_zone)) BETWEEN 10 AND 17
  GROUP BY e.home_id, e.bed_id, date_trunc('day', local_time(plus_minutes(e.started_at, -720.0), h.time_zone))
),
-- Hospital, visits, mechanics and the like teach nothing, as soon as somebody has entered them; nor do nights of which a part was not seen.
said AS (
  SELECT n.home_id, n.bed_id, n.night, min(u.known_at) AS said_at
  FROM nights n
  JOIN unusual u ON u.kind <> 'empty' AND u.home_id = n.home_id AND (u.bed_id IS NULL OR u.bed_id = n.bed_id)
    AND u.started_at < n.last_at AND u.ended_at > n.first_at
  GROUP BY n.home_id, n.bed_id, n.night
),
known AS (
  SELECT n.*, s.said_at, coalesce(x.n, 0.0) AS exits
  FROM nights n
  LEFT JOIN said s ON s.home_id = n.home_id AND s.bed_id = n.bed_id AND s.night = n.night
  LEFT JOIN exits x ON x.home_id = n.home_id AND x.bed_id = n.bed_id AND x.night = n.night
),
figures AS (
  SELECT home_id, bed_id, first_at, known_at, said_at, 'heart_rate' AS key, heart_rate AS figure FROM known WHERE heart_rate IS NOT NULL
  UNION ALL
  SELECT home_id, bed_id, first_at, known_at, said_at, 'respiratory_rate', respiratory_rate FROM known WHERE respiratory_rate IS NOT NULL
  UNION ALL
  SELECT home_id, bed_id, first_at, known_at, said_at, 'sleep_hours', hours FROM known
  UNION ALL
  SELECT home_id, bed_id, first_at, known_at, said_at, 'exits', exits FROM known
),
midnights AS (
  SELECT DISTINCT home_id, known_at FROM asked
),
usual AS (
  SELECT f.home_id, f.bed_id, f.key, m.known_at, avg(f.figure) AS mean, stddev_samp(f.figure) AS deviation, count(*) AS n_days
  FROM midnights m
  JOIN figures f ON f.home_id = m.home_id AND f.known_at <= m.known_at
    AND f.first_at <= plus_minutes(m.known_at, -7920.0) AND f.first_at > plus_minutes(m.known_at, -48240.0)
  WHERE f.said_at IS NULL OR f.said_at > m.known_at
  GROUP BY f.home_id, f.bed_id, f.key, m.known_at
  HAVING count(*) >= 14
),
lately AS (
  SELECT u.home_id, u.bed_id, u.key, u.known_at, u.mean, u.n_days, avg(f.figure) AS value
  FROM usual u
  JOIN figures f ON f.home_id = u.home_id AND f.bed_id = u.bed_id AND f.key = u.key
    -- The night in which this midnight lies is not over.
    AND f.known_at <= u.known_at AND f.first_at > plus_minutes(u.known_at, -7920.0) AND f.first_at <= plus_minutes(u.known_at, -720.0)
  WHERE f.said_at IS NULL OR f.said_at > u.known_at
  GROUP BY u.home_id, u.bed_id, u.key, u.known_at, u.mean, u.deviation, u.n_days
  -- Who is as regular as a clock may still vary by a hundredth or three.
  HAVING sum(CASE WHEN abs(f.figure - u.mean) > 2.0 * greatest(u.deviation, 0.03 * u.mean) THEN 1 ELSE 0 END) >= 3
),
outings AS (
  SELECT home_id, started_at, start_known_at, ended_at, end_known_at,
    minutes_between(lag(ended_at) OVER (PARTITION BY home_id ORDER BY started_at), started_at) / 1440.0 AS days_before
  FROM episodes
  WHERE kind = 'away'
),
habits AS (
  SELECT o.home_id, m.known_at, greatest(percentile_cont(o.days_before, 0.99), 2.0) AS days, count(*) AS n,
    minutes_between(max(o.ended_at), m.known_at) / 1440.0 AS days_indoors, bool_or(o.end_known_at IS NULL OR o.end_known_at > m.known_at) AS is_out
  FROM midnights m
  JOIN outings o ON o.home_id = m.home_id AND o.start_known_at <= m.known_at AND o.started_at > plus_minutes(m.known_at, -86400.0)
  GROUP BY o.home_id, m.known_at
  HAVING count(o.days_before) >= 20
),
indoors AS (
  SELECT * FROM habits WHERE NOT is_out AND days_indoors > days
)
SELECT home_id, bed_id, key, CAST(NULL AS BIGINT) AS slot, known_at, value, n_days FROM lately
UNION ALL
SELECT home_id, bed_id, key || '/usual', NULL, known_at, mean, n_days FROM lately
UNION ALL
SELECT home_id, NULL, 'days_indoors', NULL, known_at, days_indoors, 60 FROM indoors
UNION ALL
SELECT home_id, NULL, 'days_indoors/usual', NULL, known_at, days, 60 FROM indoors
