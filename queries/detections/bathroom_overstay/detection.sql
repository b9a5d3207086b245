-- In the bathroom for too long: 60 minutes by day, 30 between 22:00 and 06:00 (longest measured in ordinary homes: toilet 14 minutes, shower
-- 47), and whatever else is set, after four hours it is as pressing as it gets (a Beijing programme's limit).
-- In a home of several nobody knows who is in there: one step less pressing is left to those detections that still look.
-- Own numbers of a home: day_minutes, night_minutes.
WITH limits AS (
  SELECT h.home_id, h.time_zone, least($now, h.complete_to) AS known_to,
    greatest(coalesce(max(CASE WHEN p.key = 'day_minutes' THEN p.value END), 60.0), 5.0) AS day_minutes,
    greatest(coalesce(max(CASE WHEN p.key = 'night_minutes' THEN p.value END), 30.0), 5.0) AS night_minutes
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'bathroom_overstay'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.time_zone, h.complete_to
),
stays AS (
  SELECT s.home_id, s.room, s.started_at, s.end_known_at, l.known_to,
    CASE WHEN date_part('hour', local_time(s.started_at, l.time_zone)) >= 22
        OR date_part('hour', local_time(s.started_at, l.time_zone)) < 6
      THEN l.night_minutes ELSE l.day_minutes END AS minutes
  FROM episodes s
  JOIN limits l ON l.home_id = s.home_id
  WHERE s.kind = 'room_stay' AND s.room IN ('bathroom', 'toilet')
),
overstays AS (
  SELECT *, plus_minutes(started_at, minutes) AS raised_at, plus_minutes(started_at, 240.0) AS capped_at
  FROM stays
)
SELECT 'home' AS subject_kind, o.home_id AS subject_id, o.home_id, o.raised_at,
  CASE WHEN o.end_known_at <= o.known_to THEN o.end_known_at END AS cleared_at,
  o.started_at AS entered_at, o.minutes, o.room,
  CASE WHEN o.capped_at <= o.known_to AND (o.end_known_at IS NULL OR o.end_known_at > o.capped_at)
    THEN 'P1' ELSE 'P2' END AS priority
FROM overstays o
WHERE o.raised_at <= o.known_to
  AND (o.end_known_at IS NULL OR o.end_known_at > o.raised_at)
