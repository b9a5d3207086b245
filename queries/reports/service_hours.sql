-- title.zh: 上门服务时长（每户每月）
-- title.en: Hours of service per home and month
-- grain: home, month (local)
-- param from: 起始日期（含） / first day, e.g. 2026-05-01
-- param to: 结束日期（不含） / day after the last
SELECT substr(h.area, 1, 6) AS district, i.home_id, date_trunc('month', local_time(i.started_at, h.time_zone)) AS month,
  count(*) AS n_visits, sum((CAST(i.ended_at AS bigint) - CAST(i.started_at AS bigint)) / 3600000.0) AS hours
FROM intervals i
JOIN homes h ON h.home_id = i.home_id
WHERE i.kind = 'visit' AND CAST(local_time(i.started_at, h.time_zone) AS date) >= CAST($from AS date)
  AND CAST(local_time(i.started_at, h.time_zone) AS date) < CAST($to AS date)
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
