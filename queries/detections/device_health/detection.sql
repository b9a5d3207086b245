-- A device that does not answer for two minutes, a battery that runs low, a bed that has been taken for 36 hours (nobody lies so long: the mat
-- is stuck), a heart rate that has not changed for half an hour (episodes/heart_rate_stuck.toml). A fault of more than two hours is more pressing (JGJ/T 484 asks for a substitute then). Where the whole gateway is silent
-- nothing is raised here: of its devices nothing is heard at all.
WITH limits AS (
  SELECT h.home_id, least($now, h.complete_to) AS known_to
  FROM homes h
  WHERE h.complete_to IS NOT NULL
),
troubles AS (
  SELECT e.home_id, e.device_id, e.room, e.kind, e.started_at, e.end_known_at, l.known_to,
    CASE e.kind
      WHEN 'device_silent' THEN plus_minutes(e.started_at, 2.0)
      WHEN 'in_bed' THEN plus_minutes(e.started_at, 2160.0)
      ELSE e.start_known_at END AS raised_at
  FROM episodes e
  JOIN limits l ON l.home_id = e.home_id
  WHERE e.kind IN ('device_silent', 'battery_low', 'battery_very_low', 'in_bed', 'heart_rate_stuck') AND e.device_id IS NOT NULL
)
SELECT 'device' AS subject_kind, t.device_id AS subject_id, t.home_id, t.raised_at,
  CASE WHEN t.end_known_at <= t.known_to THEN t.end_known_at END AS cleared_at,
  CASE WHEN t.kind IN ('in_bed', 'heart_rate_stuck') THEN 'stuck' ELSE t.kind END AS trouble, t.room, t.started_at AS since,
  CASE
    WHEN t.kind = 'battery_low' THEN 'P4'
    WHEN t.kind IN ('battery_very_low', 'in_bed', 'heart_rate_stuck') THEN 'P3'
    WHEN plus_minutes(t.started_at, 120.0) <= t.known_to
      AND (t.end_known_at IS NULL OR t.end_known_at > plus_minutes(t.started_at, 120.0)) THEN 'P2'
    ELSE 'P3' END AS priority
FROM troubles t
WHERE t.raised_at <= t.known_to
  AND (t.end_known_at IS NULL OR t.end_known_at > t.raised_at)
