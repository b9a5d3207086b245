-- title.zh: 上门服务时长（每人每月；化名）
-- title.en: Hours of service per person and month, under a pseudonym
-- grain: person, month (local); a visit to the whole home counts for each person who lives there, one to a bed for who lies in it; visits that are over
-- param from: 起始日期（含） / first day, e.g. 2026-05-01
-- param to: 结束日期（不含） / day after the last
WITH visit AS (
  SELECT h.area, i.home_id, i.bed_id, i.started_at, CAST(local_time(i.started_at, h.time_zone) AS date) AS day,
    date_trunc('month', local_time(i.started_at, h.time_zone)) AS month,
    (CAST(i.ended_at AS bigint) - CAST(i.started_at AS bigint)) / 3600000.0 AS hours
  FROM intervals i
  JOIN homes h ON h.home_id = i.home_id
  WHERE i.kind = 'visit' AND i.ended_at <= now()
)
SELECT substr(v.area, 1, 6) AS district, p.person_id, v.home_id, v.month, count(*) AS n_visits, sum(v.hours) AS hours
FROM visit v
LEFT JOIN persons p ON p.home_id = v.home_id AND (v.bed_id IS NULL OR p.bed_id = v.bed_id)
  AND p.valid_from <= v.started_at AND (p.valid_to IS NULL OR v.started_at < p.valid_to)
WHERE v.day >= CAST($from AS date) AND v.day < CAST($to AS date)
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
