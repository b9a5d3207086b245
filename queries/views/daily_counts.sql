-- title.zh: 每户每日观测条数（按当地日期）
-- title.en: Observations per home and local day
-- grain: home, local day
SELECT o.home_id,
  CAST(local_time(o.event_time, coalesce(h.time_zone, 'Asia/Shanghai')) AS date) AS local_day,
  count(*) AS observations
FROM observations o
LEFT JOIN homes h ON h.home_id = o.home_id
GROUP BY 1, 2
