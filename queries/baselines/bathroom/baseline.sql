-- How long this person stays in the bathroom at most, by day (`key` 'day') and from 22 to 6 by the home's clock ('night'): of the longest stay
-- of each of the last 30 days (nights) the 97th percentile and a third more. Not below 60 minutes by day and 30 at night (longest measured in
-- ordinary homes: toilet 14 minutes, shower 47), and not above four hours (a Beijing programme's limit). Needs seven days (nights) with a stay.
--
-- The longest of each day, not all stays: of a dozen stays a day three in a hundred would be an alert every third day. Where people go back to
-- bed unseen, a stay seems to last till morning; there the limit is long, and a bed sensor is what helps.
WITH stays AS (
  SELECT e.home_id, e.started_at, e.end_known_at, minutes_between(e.started_at, e.ended_at) AS minutes,
    CASE WHEN date_part('hour', local_time(e.started_at, h.time_zone)) >= 22
           OR date_part('hour', local_time(e.started_at, h.time_zone)) < 6 THEN 'night' ELSE 'day' END AS key,
    -- A night belongs to the morning after it.
    date_trunc('day', local_time(plus_minutes(e.started_at, 120.0), h.time_zone)) AS day
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'room_stay' AND e.ended_at IS NOT NULL
    AND (e.room LIKE '%bath%' OR e.room LIKE '%toilet%' OR e.room LIKE '%shower%' OR e.room = 'wc')
    AND minutes_between(e.started_at, e.ended_at) <= 720.0
),
said AS (
  SELECT s.home_id, s.started_at, min(u.known_at) AS said_at
  FROM stays s
  JOIN unusual u ON u.home_id = s.home_id
    AND u.started_at < plus_minutes(s.started_at, s.minutes) AND u.ended_at > s.started_at
  GROUP BY s.home_id, s.started_at
),
longest AS (
  SELECT a.home_id, a.known_at, s.key, s.day, max(s.minutes) AS minutes
  FROM (SELECT DISTINCT home_id, known_at FROM asked) a
  JOIN stays s ON s.home_id = a.home_id AND s.end_known_at <= a.known_at AND s.started_at > plus_minutes(a.known_at, -43200.0)
  LEFT JOIN said n ON n.home_id = s.home_id AND n.started_at = s.started_at
  WHERE n.said_at IS NULL OR n.said_at > a.known_at
  GROUP BY a.home_id, a.known_at, s.key, s.day
)
SELECT home_id, CAST(NULL AS VARCHAR) AS bed_id, key, CAST(NULL AS BIGINT) AS slot, known_at,
  least(greatest(1.3 * percentile_cont(minutes, 0.97), CASE key WHEN 'night' THEN 30.0 ELSE 60.0 END), 240.0) AS value,
  count(*) AS n_days
FROM longest
GROUP BY home_id, key, known_at
HAVING count(*) >= 7
