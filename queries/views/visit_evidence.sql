-- title.zh: 上门服务佐证：登记的探访与同时段的门磁、活动记录
-- title.en: What the sensors say of each visit that was entered and is over
-- grain: home, visit
-- Doors and sensors repeat every so often that nothing is: only what opened, moved or was pressed is evidence. Where no device
-- that could tell said anything, or the home's data does not yet reach the end, nothing can be said of a visit.
WITH visit AS (
  SELECT i.home_id, i.bed_id, i.started_at, i.ended_at, i.entered_at,
    plus_minutes(i.started_at, -15.0) AS seen_from, plus_minutes(i.ended_at, 15.0) AS seen_to,
    coalesce(h.complete_to < i.ended_at, true) AS on_its_way
  FROM intervals i
  LEFT JOIN homes h ON h.home_id = i.home_id
  WHERE i.kind = 'visit' AND i.ended_at <= now()
), seen AS (
  SELECT v.home_id, v.started_at, v.ended_at, count(*) AS n_heard,
    count(*) FILTER (WHERE o.quantity IN ('door_open', 'door_event') AND o.value > 0
      AND o.event_time <= plus_minutes(v.started_at, 15.0)) AS n_door_near_start,
    count(*) FILTER (WHERE o.quantity IN ('door_open', 'door_event') AND o.value > 0
      AND o.event_time >= plus_minutes(v.ended_at, -15.0)) AS n_door_near_end,
    count(*) FILTER (WHERE o.quantity IN ('motion', 'motion_event', 'presence') AND o.value > 0
      AND o.event_time BETWEEN v.started_at AND v.ended_at) AS n_motion_during,
    count(*) FILTER (WHERE o.quantity = 'service_button' AND o.value > 0 AND o.event_time <= v.ended_at) AS n_service_button
  FROM (SELECT DISTINCT home_id, started_at, ended_at, seen_from, seen_to FROM visit) v
  JOIN observations o ON o.home_id = v.home_id AND o.event_time BETWEEN v.seen_from AND v.seen_to
  WHERE o.quality NOT LIKE 'bad%'
    AND o.quantity IN ('door_open', 'door_event', 'motion', 'motion_event', 'presence', 'service_button')
  GROUP BY v.home_id, v.started_at, v.ended_at
)
SELECT v.home_id, v.bed_id, v.started_at, v.ended_at, v.entered_at,
  (CAST(v.ended_at AS bigint) - CAST(v.started_at AS bigint)) / 60000.0 AS minutes,
  coalesce(s.n_door_near_start, 0) AS n_door_near_start, coalesce(s.n_door_near_end, 0) AS n_door_near_end,
  coalesce(s.n_motion_during, 0) AS n_motion_during, coalesce(s.n_service_button, 0) AS n_service_button,
  CASE
    WHEN s.n_service_button > 0 THEN 'confirmed'
    WHEN s.n_door_near_start > 0 AND s.n_door_near_end > 0 THEN 'supported'
    WHEN s.n_door_near_start + s.n_door_near_end + s.n_motion_during > 0 THEN 'weak'
    WHEN s.n_heard IS NULL OR v.on_its_way THEN 'unknown'
    ELSE 'none'
  END AS evidence
FROM visit v
LEFT JOIN seen s ON s.home_id = v.home_id AND s.started_at = v.started_at AND s.ended_at = v.ended_at
