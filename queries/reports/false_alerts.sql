-- title.zh: 误报比例（按区域与检测）
-- title.en: Share of false alerts per area and detection
-- grain: area, detection
-- param from: 起始日期（含） / first day, e.g. 2026-05-01
-- param to: 结束日期（不含） / day after the last
SELECT area, detection, count(*) AS n_alerts, count(outcome) AS n_judged,
  count(*) FILTER (WHERE outcome = 'verified') AS n_verified,
  count(*) FILTER (WHERE outcome = 'false_alarm') AS n_false,
  count(*) FILTER (WHERE outcome = 'false_alarm') / CAST(nullif(count(outcome), 0) AS double) AS false_share
FROM alert_times
WHERE class = 'care' AND raised_at >= CAST($from AS date) AND raised_at < CAST($to AS date)
GROUP BY area, detection
ORDER BY area, detection
