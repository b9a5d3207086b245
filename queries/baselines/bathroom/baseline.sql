-- How long this person's own stays in the bathroom last, by day (`key` 'day') and from 22 to 6 by the home's clock ('night'): the 97th percentile
-- of the last 30 days and a third more; by day between 45 and 120 minutes, by night between 25 and 60
-- (longest measured in ordinary homes: toilet 14 minutes, shower 47; shorter limits ring for those who take their time). Needs twenty stays on seven days.
WITH stays AS (
  SELECT e.home_id, e.started_at, e.end_known_at, minutes_between(e.started_at, e.ended_at) AS minutes,
    CASE WHEN date_part('hour', local_time(e.started_at, h.time_zone)) >= 22
           OR date_part('hour', local_time(e.started_at, h.time_zone)) < 6 THEN 'night' ELSE 'day' END AS key,
    date_trunc('day', local_time(e.started_at, h.time_zone)) AS day
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'room_stay' AND e.ended_at IS NOT NULL
    AND (e.room LIKE '%bath%' OR e.room LIKE '%toilet%' OR e.room LIKE '%shower%' OR e.room = 'wc')
    AND minutes_between(e.started_at, e.ended_at) <= 720.0
),
unusual AS (
  SELECT home_id, started_at, ended_at, entered_at AS known_at FROM intervals
  UNION ALL
  SELECT home_id, started_at, coalesce(ended_at, $now), start_known_at FROM episodes WHERE kind IN ('away', 'unobserved')
),
said AS (
  SELECT s.home_id, s.started_at, min(u.known_at) AS said_at
  FROM stays s
  JOIN unusual u ON u.home_id = s.home_id
    AND u.started_at < plus_minutes(s.started_at, s.minutes) AND u.ended_at > s.started_at
  GROUP BY s.home_id, s.started_at
)
SELECT s.home_id, CAST(NULL AS VARCHAR) AS bed_id, s.key, CAST(NULL AS BIGINT) AS slot, a.known_at,
  CASE WHEN s.key = 'night' THEN least(greatest(1.3 * percentile_cont(s.minutes, 0.97), 25.0), 60.0)
    ELSE least(greatest(1.3 * percentile_cont(s.minutes, 0.97), 45.0), 120.0) END AS value,
  count(DISTINCT s.day) AS n_days
FROM (SELECT DISTINCT home_id, known_at FROM asked) a
JOIN stays s ON s.home_id = a.home_id AND s.end_known_at <= a.known_at AND s.started_at > plus_minutes(a.known_at, -43200.0)
LEFT JOIN said n ON n.home_id = s.home_id AND n.started_at = s.started_at
WHERE n.said_at IS NULL OR n.said_at > a.known_at
GROUP BY s.home_id, s.key, a.known_at
HAVING count(DISTINCT s.day) >= 7 AND count(*) >= 20
