-- title.zh: 告警指标：60 秒与 180 秒受理、30/45/60 分钟到场、误报比例（按区域、月份、检测）
-- title.en: Alert figures per area, month and detection: acknowledged in 60 s and 180 s (TSA), on site in 30, 45 and 60 min, false share
-- grain: area, month (local), detection
SELECT a.area, date_trunc('month', local_time(a.raised_at, coalesce(h.time_zone, 'Asia/Shanghai'))) AS month, a.detection,
  count(*) AS n_alerts, count(rang_at) AS n_rang,
  avg(CASE WHEN seconds_to_acknowledge <= 60.0 THEN 1.0 ELSE 0.0 END) FILTER (WHERE rang_at IS NOT NULL) AS share_in_60_s,
  avg(CASE WHEN seconds_to_acknowledge <= 180.0 THEN 1.0 ELSE 0.0 END) FILTER (WHERE rang_at IS NOT NULL) AS share_in_180_s,
  approx_percentile_cont(seconds_to_acknowledge, 0.5) AS seconds_median,
  approx_percentile_cont(seconds_to_acknowledge, 0.95) AS seconds_p95,
  count(dispatched_at) AS n_dispatched,
  avg(CASE WHEN minutes_to_arrive <= 30.0 THEN 1.0 ELSE 0.0 END) FILTER (WHERE dispatched_at IS NOT NULL) AS share_in_30_min,
  avg(CASE WHEN minutes_to_arrive <= 45.0 THEN 1.0 ELSE 0.0 END) FILTER (WHERE dispatched_at IS NOT NULL) AS share_in_45_min,
  avg(CASE WHEN minutes_to_arrive <= 60.0 THEN 1.0 ELSE 0.0 END) FILTER (WHERE dispatched_at IS NOT NULL) AS share_in_60_min,
  avg(CASE WHEN outcome = 'false_alarm' THEN 1.0 ELSE 0.0 END) FILTER (WHERE outcome IN ('verified', 'false_alarm', 'other')) AS false_share
FROM alert_times a
LEFT JOIN homes h ON h.home_id = a.home_id
GROUP BY 1, 2, 3
