-- In bed without a break for 10 hours (a Beijing programme's limit for the bedroom), or two hours longer than this person is ever in bed on
-- such a morning (baselines/bed_times; working days and weekends apart). A gap under a minute is the mat's, not the
-- person's. Own number of a home: hours. Switch it off (key 'off', value 1) for people who cannot get up.
-- Less pressing while the person is seen to breathe, and heart and breath are as they should be.
WITH limits AS (
  SELECT h.home_id, h.time_zone, least($now, h.complete_to) AS known_to,
    greatest(coalesce(max(CASE WHEN p.key = 'hours' THEN p.value END), 10.0), 1.0) AS hours,
    coalesce(max(CASE WHEN p.key = 'off' THEN p.value END), 0.0) AS is_off
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'bed_overstay'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.time_zone, h.complete_to
),
stays AS (
  SELECT b.home_id, b.bed_id, b.started_at, b.start_known_at, b.end_known_at, l.known_to, l.hours, l.time_zone,
    CASE WHEN date_part('dow', local_time(plus_minutes(b.started_at, -720.0), l.time_zone)) IN (5, 6)
      THEN 'get_up/weekend' ELSE 'get_up/weekday' END AS key
  FROM episodes b
  JOIN limits l ON l.home_id = b.home_id
  WHERE b.kind = 'in_bed' AND l.is_off < 0.5
),
deadlines AS (
  SELECT s.*, plus_minutes(s.started_at, s.hours * 60.0) AS by_hours,
    -- When this person is up at the latest, in hours since noon, and two hours more.
    next_at_hour(s.started_at, s.time_zone, u.value + 14.0) AS by_habit
  FROM stays s
  LEFT JOIN usual u ON u.baseline = 'bed_times' AND u.home_id = s.home_id AND u.bed_id = s.bed_id AND u.key = s.key
    AND u.known_at <= s.started_at AND u.known_until > s.started_at
),
overstays AS (
  SELECT *,
    -- Who lies down in the morning has not failed to get up.
    greatest(start_known_at, CASE WHEN by_habit < by_hours AND minutes_between(started_at, by_habit) >= 300.0
      THEN by_habit ELSE by_hours END) AS raised_at
  FROM deadlines
),
-- Seen to breathe then, and nothing odd was known about it.
well AS (
  SELECT o.home_id, o.bed_id, o.started_at, bool_and(v.kind = 'breathing') AS is_well
  FROM overstays o
  JOIN episodes v ON v.home_id = o.home_id AND v.bed_id = o.bed_id
    AND (v.kind IN ('breathing', 'vitals_lost', 'apnea') OR v.kind LIKE 'heart_rate_%' OR v.kind LIKE 'respiratory_rate_%')
    AND v.start_known_at <= o.raised_at AND (v.end_known_at IS NULL OR v.end_known_at > o.raised_at)
  GROUP BY o.home_id, o.bed_id, o.started_at
)
SELECT CASE WHEN o.bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
  coalesce(o.bed_id, o.home_id) AS subject_id, o.home_id, o.raised_at,
  CASE WHEN o.end_known_at <= o.known_to THEN o.end_known_at END AS cleared_at,
  CASE WHEN w.is_well THEN 'P3' ELSE 'P2' END AS priority,
  o.started_at AS in_bed_since, round(minutes_between(o.started_at, o.raised_at) / 6.0) / 10.0 AS hours
FROM overstays o
LEFT JOIN well w ON w.home_id = o.home_id AND w.bed_id = o.bed_id AND w.started_at = o.started_at
WHERE o.raised_at <= o.known_to
  AND (o.end_known_at IS NULL OR o.end_known_at > o.raised_at)
