-- title.zh: 在床心率与呼吸（每分钟中位数）
-- title.en: Heart and respiratory rate in bed, medians per minute
-- grain: bed, minute
SELECT home_id, bed_id, event_day, date_trunc('minute', event_time) AS minute,
  median(value) FILTER (WHERE quantity = 'heart_rate') AS heart_rate,
  median(value) FILTER (WHERE quantity = 'respiratory_rate') AS respiratory_rate,
  count(*) AS n_values
FROM observations
WHERE quantity IN ('heart_rate', 'respiratory_rate') AND quality = 'good' AND value > 0 AND bed_id IS NOT NULL
GROUP BY home_id, bed_id, event_day, date_trunc('minute', event_time)
