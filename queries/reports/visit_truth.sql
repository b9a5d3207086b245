-- title.zh: 服务真实性核对
-- title.en: Visits and what the sensors say of them
-- grain: home, visit
-- param from: 起始日期（含） / first day, e.g. 2026-05-01
-- param to: 结束日期（不含） / day after the last
SELECT h.area, v.home_id, v.started_at, v.ended_at, v.minutes, v.evidence, v.n_door_near_start, v.n_door_near_end,
  v.n_motion_during, v.n_service_button
FROM visit_evidence v
JOIN homes h ON h.home_id = v.home_id
WHERE CAST(local_time(v.started_at, h.time_zone) AS date) >= CAST($from AS date)
  AND CAST(local_time(v.started_at, h.time_zone) AS date) < CAST($to AS date)
ORDER BY h.area, v.home_id, v.started_at
