-- title.zh: 每夜卧床小结（当日 18 时至次日 12 时）
-- title.en: Nights in bed, each from 18:00 to 12:00 local
-- grain: bed, night (named by the day on which it begins)
WITH stretches AS (
  SELECT s.*, h.time_zone,
    CAST(local_time(plus_minutes(s.started_at, -720.0), h.time_zone) AS date) AS night,
    date_part('hour', local_time(s.started_at, h.time_zone)) AS hour
  FROM bed_sessions s JOIN homes h ON h.home_id = s.home_id
)
SELECT home_id, bed_id, night,
  min(started_at) AS first_in_bed, max(ended_at) AS last_out_of_bed,
  sum(minutes) AS minutes_in_bed, count(*) - 1 AS n_exits, max(minutes) AS longest_minutes
FROM stretches
WHERE hour >= 18 OR hour < 12
GROUP BY home_id, bed_id, night
