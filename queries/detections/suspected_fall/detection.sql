-- Up at night and then nothing: somebody got out of bed (seen around the exit, or later while the bed is empty), has not come back, and for
-- 15 minutes nothing has moved anywhere in the home. In the bathroom 30 minutes are given (what baselines/bathroom learns may be hours, where
-- nobody sees who goes back to bed: too long for somebody on the floor). The long lie that matters is an hour (30 % of
-- over-90s who fell lay that long, doi 10.1136/bmj.a2227).
-- Only at night, from 22:00 by the home's clock to 06:00, or later where this person is never up so early: by day whoever sits and reads moves
-- no less little. From when they may be up for the day (baselines/bed_times: later than on one of 20 mornings; between 04:00 and 09:00; 06:00
-- where that is not known) only what begins within an hour of leaving the bed: whoever has been about by then may sit down.
-- Own numbers of a home: quiet_minutes, bathroom_minutes; at least 15, when a quiet is known.
WITH limits AS (
  SELECT h.home_id, h.time_zone, least($now, h.complete_to) AS known_to,
    greatest(coalesce(max(CASE WHEN p.key = 'quiet_minutes' THEN p.value END), 15.0), 15.0) AS quiet_minutes,
    greatest(coalesce(max(CASE WHEN p.key = 'bathroom_minutes' THEN p.value END), 30.0), 15.0) AS bathroom_minutes
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'suspected_fall'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.time_zone, h.complete_to
),
left_bed AS (
  SELECT e.home_id, e.bed_id, e.device_id AS mat, attribute(e.attributes, 'confirmed') = 'true' AS confirmed,
    e.started_at AS left_at, e.start_known_at, e.end_known_at, l.known_to, l.time_zone, l.quiet_minutes, l.bathroom_minutes,
    CASE WHEN date_part('dow', local_time(plus_minutes(e.started_at, -720.0), l.time_zone)) IN (5, 6)
      THEN 'up_from/weekend' ELSE 'up_from/weekday' END AS key
  FROM episodes e
  JOIN limits l ON l.home_id = e.home_id
  WHERE e.kind = 'out_of_bed'
),
mornings AS (
  SELECT x.*, next_at_hour(x.left_at, x.time_zone, greatest(x.up_hour, 6.0)) AS night_end
  FROM (
    SELECT b.*, least(greatest(coalesce(u.value - 12.0, 6.0), 4.0), 9.0) AS up_hour
    FROM left_bed b
    -- The person's own (counted from noon), as it was known when the bed was left.
    LEFT JOIN usual u ON u.baseline = 'bed_times' AND u.home_id = b.home_id AND u.bed_id = b.bed_id AND u.key = b.key
      AND u.known_at <= b.left_at AND u.known_until > b.left_at
  ) x
),
-- It is night while its end comes before the evening.
exits AS (
  SELECT *, next_at_hour(plus_minutes(night_end, -720.0), time_zone, up_hour) AS up_from
  FROM mornings
  WHERE night_end < next_at_hour(left_at, time_zone, 22.0)
),
lying AS (
  SELECT x.home_id, x.bed_id, x.left_at, x.known_to, q.room, q.started_at AS last_activity_at,
    CASE WHEN q.room LIKE '%bath%' OR q.room LIKE '%toilet%' OR q.room LIKE '%shower%' OR q.room = 'wc' THEN x.bathroom_minutes
      ELSE x.quiet_minutes END AS minutes,
    least(q.end_known_at, x.end_known_at) AS over_at, q.start_known_at, x.start_known_at AS left_known_at
  FROM exits x
  JOIN episodes q ON q.kind = 'quiet' AND q.home_id = x.home_id
    AND q.started_at >= plus_minutes(x.left_at, -1.0)
    -- A mat that dropped out moved nobody: something else must have been the last that moved, or have moved around the exit.
    AND (x.confirmed OR q.device_id IS DISTINCT FROM x.mat)
    -- After three hours out of bed people are up as well, whatever the hour.
    AND (q.started_at < x.up_from AND q.started_at <= plus_minutes(x.left_at, 180.0)
      OR q.started_at < x.night_end AND q.started_at <= plus_minutes(x.left_at, 60.0))
),
falls AS (
  SELECT *, greatest(plus_minutes(last_activity_at, minutes), start_known_at, left_known_at) AS raised_at FROM lying
)
SELECT CASE WHEN f.bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
  coalesce(f.bed_id, f.home_id) AS subject_id, f.home_id, f.raised_at,
  CASE WHEN f.over_at <= f.known_to THEN f.over_at END AS cleared_at,
  f.left_at, f.last_activity_at, f.room, f.minutes
FROM falls f
WHERE f.raised_at <= f.known_to
  AND (f.over_at IS NULL OR f.over_at > f.raised_at)
  -- Whoever left through the front door does not lie on the floor at home.
  AND NOT EXISTS (
    SELECT 1 FROM episodes a
    WHERE a.kind = 'away' AND a.home_id = f.home_id
      AND a.start_known_at <= f.raised_at
      AND (a.end_known_at IS NULL OR a.end_known_at > f.raised_at))
