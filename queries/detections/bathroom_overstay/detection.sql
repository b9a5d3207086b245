-- In the bathroom for too long: 60 minutes by day, 30 between 22:00 and 06:00 (longest measured in ordinary homes: toilet 14 minutes, shower
-- 47), or longer where that is usual for this person (baselines/bathroom); and whatever else is set, after four hours it is as pressing as it
-- gets (a Beijing programme's limit).
-- In a home of several nobody knows who is in there: no stay is inferred.
-- Own numbers of a home: day_minutes, night_minutes.
WITH limits AS (
  SELECT h.home_id, h.time_zone, least($now, h.complete_to) AS known_to,
    max(CASE WHEN p.key = 'day_minutes' THEN p.value END) AS day_minutes,
    max(CASE WHEN p.key = 'night_minutes' THEN p.value END) AS night_minutes
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'bathroom_overstay'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.time_zone, h.complete_to
),
stays AS (
  SELECT s.home_id, s.room, s.started_at, s.end_known_at, l.known_to, l.day_minutes, l.night_minutes,
    CASE WHEN date_part('hour', local_time(s.started_at, l.time_zone)) >= 22
        OR date_part('hour', local_time(s.started_at, l.time_zone)) < 6
      THEN 'night' ELSE 'day' END AS part
  FROM episodes s
  JOIN limits l ON l.home_id = s.home_id
  WHERE s.kind = 'room_stay'
    AND (s.room LIKE '%bath%' OR s.room LIKE '%toilet%' OR s.room LIKE '%shower%' OR s.room = 'wc')
),
limited AS (
  SELECT s.*, greatest(CASE s.part
      WHEN 'night' THEN coalesce(s.night_minutes, u.value, 30.0)
      ELSE coalesce(s.day_minutes, u.value, 60.0) END, 5.0) AS minutes
  FROM stays s
  -- The person's own, as it was known when the stay began.
  LEFT JOIN usual u ON u.baseline = 'bathroom' AND u.home_id = s.home_id AND u.key = s.part
    AND u.known_at <= s.started_at AND u.known_until > s.started_at
),
overstays AS (
  SELECT *, plus_minutes(started_at, minutes) AS raised_at, plus_minutes(started_at, 240.0) AS capped_at
  FROM limited
)
SELECT 'home' AS subject_kind, o.home_id AS subject_id, o.home_id, o.raised_at,
  CASE WHEN o.end_known_at <= o.known_to THEN o.end_known_at END AS cleared_at,
  o.started_at AS entered_at, o.minutes, o.room,
  CASE WHEN o.capped_at <= o.known_to AND (o.end_known_at IS NULL OR o.end_known_at > o.capped_at)
    THEN 'P1' ELSE 'P2' END AS priority
FROM overstays o
WHERE o.raised_at <= o.known_to
  AND (o.end_known_at IS NULL OR o.end_known_at > o.raised_at)
