-- title.zh: 每夜卧床小结（当日 18 时至次日 12 时）
-- title.en: Nights in bed, each from 18:00 to 12:00 local
-- grain: bed, night (named by the day on which it begins)
-- Who lies in bed for days has all those nights, up to a month of one stretch; what is over before the night has lasted an hour
-- and began before it is no part of it.
WITH stretch AS (
  SELECT s.home_id, s.bed_id, s.started_at, s.ended_at, coalesce(s.ended_at, h.complete_to) AS until, h.time_zone,
    next_at_hour(plus_minutes(s.started_at, -1080.0), h.time_zone, 18.0) AS first_evening
  FROM bed_sessions s JOIN homes h ON h.home_id = s.home_id
  WHERE s.ended_at IS NOT NULL OR h.complete_to IS NOT NULL
), evening AS (
  SELECT *, unnest(array_slice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30],
    1, 1 + CAST(floor(minutes_between(first_evening, greatest(until, first_evening)) / 1440.0) AS bigint))) AS later
  FROM stretch
), part AS (
  SELECT *, next_at_hour(plus_minutes(first_evening, later * 1440.0 - 120.0), time_zone, 18.0) AS evening
  FROM evening
), lain AS (
  SELECT home_id, bed_id, started_at, ended_at, evening, CAST(local_time(evening, time_zone) AS date) AS night,
    minutes_between(greatest(started_at, evening), least(until, next_at_hour(evening, time_zone, 12.0))) AS minutes
  FROM part
)
SELECT home_id, bed_id, night,
  min(started_at) AS first_in_bed, max(ended_at) AS last_out_of_bed,
  sum(minutes) AS minutes_in_bed, count(*) - 1 AS n_exits, max(minutes) AS longest_minutes
FROM lain
WHERE minutes >= 60.0 OR (minutes > 0.0 AND started_at >= evening)
GROUP BY home_id, bed_id, night
