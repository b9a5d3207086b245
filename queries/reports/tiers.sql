-- title.zh: 区、街道、社区三级汇总
-- title.en: Roll-up per district, street or community
-- grain: administrative code
-- param digits: 行政区划代码位数（区县 6、街道 9、社区 12） / digits of the administrative code (district 6, street 9, community 12)
WITH home AS (
  SELECT substr(area, 1, CAST($digits AS bigint)) AS code, count(*) AS n_homes, sum(residents) AS n_residents FROM homes GROUP BY 1
), bed AS (
  SELECT substr(h.area, 1, CAST($digits AS bigint)) AS code, count(*) AS n_beds
  FROM beds b JOIN homes h ON h.home_id = b.home_id GROUP BY 1
), alert AS (
  SELECT substr(area, 1, CAST($digits AS bigint)) AS code, count(*) AS n_alerts, count(*) FILTER (WHERE detection = 'call_for_help') AS n_calls,
    count(*) FILTER (WHERE resolved_at IS NULL) AS n_open
  FROM alert_times GROUP BY 1
)
SELECT home.code, n_homes, n_residents, coalesce(n_beds, 0) AS n_beds, coalesce(n_alerts, 0) AS n_alerts,
  coalesce(n_calls, 0) AS n_calls, coalesce(n_open, 0) AS n_open
FROM home
LEFT JOIN bed ON bed.code = home.code
LEFT JOIN alert ON alert.code = home.code
ORDER BY home.code
