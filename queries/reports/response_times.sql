-- title.zh: 响应时间（受理 60/180 秒，到场 30/45/60 分钟）
-- title.en: Response times (acknowledged in 60/180 s, on site in 30/45/60 min)
-- grain: area, detection
-- param from: 起始日期（含） / first day, e.g. 2026-05-01
-- param to: 结束日期（不含） / day after the last
SELECT a.area, a.detection, count(rang_at) AS n_rang,
  count(*) FILTER (WHERE seconds_to_acknowledge <= 60.0) AS n_in_60_s,
  count(*) FILTER (WHERE seconds_to_acknowledge <= 180.0) AS n_in_180_s,
  count(*) FILTER (WHERE rang_at IS NOT NULL AND acknowledged_at IS NULL) AS n_never_acknowledged,
  approx_percentile_cont(seconds_to_acknowledge, 0.5) AS seconds_median,
  approx_percentile_cont(seconds_to_acknowledge, 0.95) AS seconds_p95,
  count(dispatched_at) AS n_dispatched,
  count(*) FILTER (WHERE minutes_to_arrive <= 30.0) AS n_in_30_min,
  count(*) FILTER (WHERE minutes_to_arrive <= 45.0) AS n_in_45_min,
  count(*) FILTER (WHERE minutes_to_arrive <= 60.0) AS n_in_60_min
FROM alert_times a
LEFT JOIN homes h ON h.home_id = a.home_id
WHERE a.class = 'care'
  AND CAST(local_time(a.raised_at, coalesce(h.time_zone, 'Asia/Shanghai')) AS date) >= CAST($from AS date)
  AND CAST(local_time(a.raised_at, coalesce(h.time_zone, 'Asia/Shanghai')) AS date) < CAST($to AS date)
GROUP BY a.area, a.detection
ORDER BY a.area, a.detection
