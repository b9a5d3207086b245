-- title.zh: 应访未访名单
-- title.en: Homes whose visit is due
-- grain: home
-- param days: 多少天内应有一次探访（周 7、月 31、季 92） / a visit is due every so many days (weekly 7, monthly 31, quarterly 92)
SELECT h.area, h.home_id, max(i.started_at) AS last_visit,
  floor((CAST(now() AS bigint) / 1000000 - CAST(max(i.started_at) AS bigint)) / 86400000.0) AS days_since
FROM homes h
LEFT JOIN intervals i ON i.home_id = h.home_id AND i.kind = 'visit' AND i.started_at <= now()
GROUP BY h.area, h.home_id
HAVING max(i.started_at) IS NULL
  OR CAST(now() AS bigint) / 1000000 - CAST(max(i.started_at) AS bigint) > CAST($days AS bigint) * 86400000
ORDER BY last_visit NULLS FIRST, h.home_id
