-- title.zh: 误报比例（按区域与检测）
-- title.en: Share of false alerts per area and detection
-- grain: area, detection
-- Judged is what somebody said was so or was not: neither tests nor what was over before anybody acted.
-- param from: 起始日期（含） / first day, e.g. 2026-05-01
-- param to: 结束日期（不含） / day after the last
SELECT a.area, a.detection, count(*) AS n_alerts, count(*) FILTER (WHERE outcome IN ('verified', 'false_alarm', 'other')) AS n_judged,
  count(*) FILTER (WHERE outcome = 'verified') AS n_verified,
  count(*) FILTER (WHERE outcome = 'false_alarm') AS n_false,
  count(*) FILTER (WHERE outcome = 'false_alarm')
    / CAST(nullif(count(*) FILTER (WHERE outcome IN ('verified', 'false_alarm', 'other')), 0) AS double) AS false_share
FROM alert_times a
LEFT JOIN homes h ON h.home_id = a.home_id
WHERE a.class = 'care'
  AND CAST(local_time(a.raised_at, coalesce(h.time_zone, 'Asia/Shanghai')) AS date) >= CAST($from AS date)
  AND CAST(local_time(a.raised_at, coalesce(h.time_zone, 'Asia/Shanghai')) AS date) < CAST($to AS date)
GROUP BY a.area, a.detection
ORDER BY a.area, a.detection
