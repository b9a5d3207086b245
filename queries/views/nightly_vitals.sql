-- title.zh: 每夜生命体征小结
-- title.en: Vital signs of each night
-- grain: bed, night (named by the day on which it begins)
SELECT v.home_id, v.bed_id,
  CAST(local_time(plus_minutes(v.minute, -720.0), h.time_zone) AS date) AS night,
  avg(v.heart_rate) AS heart_rate_mean, min(v.heart_rate) AS heart_rate_min, max(v.heart_rate) AS heart_rate_max,
  avg(v.respiratory_rate) AS respiratory_rate_mean, min(v.respiratory_rate) AS respiratory_rate_min,
  max(v.respiratory_rate) AS respiratory_rate_max, count(*) AS n_minutes
FROM vitals v
JOIN homes h ON h.home_id = v.home_id
WHERE date_part('hour', local_time(v.minute, h.time_zone)) >= 18 OR date_part('hour', local_time(v.minute, h.time_zone)) < 12
GROUP BY v.home_id, v.bed_id, CAST(local_time(plus_minutes(v.minute, -720.0), h.time_zone) AS date)
