-- When this person usually gets up and goes to bed, on working days and on weekends apart, of the last 30 days: the latest (`key`
-- 'get_up/weekday', 'get_up/weekend', 'to_bed/weekday', 'to_bed/weekend': the 95th percentile) and the earliest that they are up for the day
-- ('up_from/weekday', 'up_from/weekend': the 5th). In hours counted from local noon, so that nights are whole:
-- 10.5 is half past ten in the evening, 19.0 seven in the morning. A night's sleep begins with the first stay in bed of half an hour
-- and more, and ends with the last. Needs five such nights of the kind of day (of working days seven).
WITH sleeps AS (
  SELECT e.home_id, e.bed_id,
    date_trunc('day', local_time(plus_minutes(e.started_at, -720.0), h.time_zone)) AS night,
    (date_part('hour', local_time(plus_minutes(e.started_at, -720.0), h.time_zone))
      + date_part('minute', local_time(plus_minutes(e.started_at, -720.0), h.time_zone)) / 60.0) AS began,
    minutes_between(e.started_at, e.ended_at) / 60.0 AS hours, e.started_at, e.ended_at, e.end_known_at
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'in_bed' AND e.ended_at IS NOT NULL AND e.bed_id IS NOT NULL
    AND minutes_between(e.started_at, e.ended_at) BETWEEN 30.0 AND 1080.0
),
said AS (
  SELECT s.home_id, s.bed_id, s.night, min(u.known_at) AS said_at
  FROM sleeps s
  JOIN unusual u ON u.kind <> 'empty' AND u.home_id = s.home_id AND (u.bed_id IS NULL OR u.bed_id = s.bed_id)
    AND u.started_at < s.ended_at AND u.ended_at > s.started_at
  GROUP BY s.home_id, s.bed_id, s.night
),
-- From six in the evening to four in the afternoon: an afternoon's nap is no night.
nights AS (
  SELECT s.home_id, s.bed_id, s.night, n.said_at, min(s.began) AS to_bed, max(s.began + s.hours) AS get_up,
    max(s.end_known_at) AS known_at, min(s.started_at) AS first_at,
    CASE WHEN date_part('dow', s.night) IN (5, 6) THEN 'weekend' ELSE 'weekday' END AS kind
  FROM sleeps s
  LEFT JOIN said n ON n.home_id = s.home_id AND n.bed_id = s.bed_id AND n.night = s.night
  WHERE s.began >= 6.0
  GROUP BY s.home_id, s.bed_id, s.night, n.said_at
),
times AS (
  SELECT home_id, bed_id, night, said_at, known_at, first_at, kind, 'get_up/' || kind AS key, 0.95 AS share, get_up AS at_hour FROM nights
  UNION ALL
  SELECT home_id, bed_id, night, said_at, known_at, first_at, kind, 'to_bed/' || kind, 0.95, to_bed FROM nights
  UNION ALL
  SELECT home_id, bed_id, night, said_at, known_at, first_at, kind, 'up_from/' || kind, 0.05, get_up FROM nights
)
SELECT t.home_id, t.bed_id, t.key, CAST(NULL AS BIGINT) AS slot, a.known_at,
  CASE t.share WHEN 0.95 THEN percentile_cont(t.at_hour, 0.95) ELSE percentile_cont(t.at_hour, 0.05) END AS value, count(*) AS n_days
FROM (SELECT DISTINCT home_id, known_at FROM asked) a
JOIN times t ON t.home_id = a.home_id AND t.known_at <= a.known_at AND t.known_at > plus_minutes(a.known_at, -43200.0)
  -- The night in which this midnight lies is not over.
  AND t.first_at <= plus_minutes(a.known_at, -720.0)
WHERE t.said_at IS NULL OR t.said_at > a.known_at
GROUP BY t.home_id, t.bed_id, t.key, t.kind, t.share, a.known_at
HAVING count(*) >= CASE WHEN t.kind = 'weekday' THEN 7 ELSE 5 END
