-- title.zh: 在床心率与呼吸（每分钟中位数）
-- title.en: Heart and respiratory rate in bed, medians per minute
-- grain: bed, minute
-- Minutes in which the whole body moved are left out: what is measured then is none (episodes/restless.toml).
SELECT home_id, bed_id, event_day, date_trunc('minute', event_time) AS minute,
  median(value) FILTER (WHERE quantity = 'heart_rate' AND value > 0) AS heart_rate,
  median(value) FILTER (WHERE quantity = 'respiratory_rate' AND value > 0) AS respiratory_rate,
  count(*) FILTER (WHERE quantity <> 'body_movement' AND value > 0) AS n_values
FROM observations
WHERE quantity IN ('heart_rate', 'respiratory_rate', 'body_movement') AND quality = 'good' AND bed_id IS NOT NULL
GROUP BY home_id, bed_id, event_day, date_trunc('minute', event_time)
HAVING coalesce(max(value) FILTER (WHERE quantity = 'body_movement'), 0.0) <= 30.0
  AND count(*) FILTER (WHERE quantity <> 'body_movement' AND value > 0) > 0
