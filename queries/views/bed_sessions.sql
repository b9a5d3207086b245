-- title.zh: 在床时段
-- title.en: Stretches in bed
-- grain: bed, stretch
SELECT e.home_id, e.bed_id, e.started_at, e.ended_at, e.end_known_at,
  CAST(local_time(e.started_at, h.time_zone) AS date) AS local_day,
  (CAST(coalesce(e.ended_at, h.complete_to) AS bigint) - CAST(e.started_at AS bigint)) / 60000.0 AS minutes,
  e.ended_at IS NULL AS open
FROM episodes e
JOIN homes h ON h.home_id = e.home_id
WHERE e.kind = 'in_bed'
