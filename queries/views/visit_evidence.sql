-- title.zh: 上门服务佐证：登记的探访与同时段的门磁、活动记录
-- title.en: What the sensors say of each visit that was entered
-- grain: home, visit
WITH visit AS (
  SELECT home_id, bed_id, started_at, ended_at, entered_at FROM intervals WHERE kind = 'visit'
), seen AS (
  SELECT v.home_id, v.started_at,
    count(*) FILTER (WHERE o.quantity IN ('door_open', 'door_event')
      AND o.event_time BETWEEN plus_minutes(v.started_at, -15.0) AND plus_minutes(v.started_at, 15.0)) AS n_door_near_start,
    count(*) FILTER (WHERE o.quantity IN ('door_open', 'door_event')
      AND o.event_time BETWEEN plus_minutes(v.ended_at, -15.0) AND plus_minutes(v.ended_at, 15.0)) AS n_door_near_end,
    count(*) FILTER (WHERE o.quantity IN ('motion', 'motion_event', 'presence')
      AND o.event_time BETWEEN v.started_at AND v.ended_at) AS n_motion_during,
    count(*) FILTER (WHERE o.quantity = 'service_button'
      AND o.event_time BETWEEN plus_minutes(v.started_at, -15.0) AND v.ended_at) AS n_service_button
  FROM visit v
  JOIN observations o ON o.home_id = v.home_id
    AND o.event_time BETWEEN plus_minutes(v.started_at, -15.0) AND plus_minutes(v.ended_at, 15.0)
  GROUP BY v.home_id, v.started_at
)
SELECT v.home_id, v.bed_id, v.started_at, v.ended_at, v.entered_at,
  (CAST(v.ended_at AS bigint) - CAST(v.started_at AS bigint)) / 60000.0 AS minutes,
  coalesce(s.n_door_near_start, 0) AS n_door_near_start, coalesce(s.n_door_near_end, 0) AS n_door_near_end,
  coalesce(s.n_motion_during, 0) AS n_motion_during, coalesce(s.n_service_button, 0) AS n_service_button,
  CASE
    WHEN coalesce(s.n_service_button, 0) > 0 THEN 'confirmed'
    WHEN coalesce(s.n_door_near_start, 0) > 0 AND coalesce(s.n_door_near_end, 0) > 0 THEN 'supported'
    WHEN coalesce(s.n_door_near_start, 0) + coalesce(s.n_door_near_end, 0) + coalesce(s.n_motion_during, 0) > 0 THEN 'weak'
    ELSE 'none'
  END AS evidence
FROM visit v
LEFT JOIN seen s ON s.home_id = v.home_id AND s.started_at = v.started_at
