-- In bed without a break for 10 hours (a Beijing programme's limit for the bedroom). A gap under a minute is the mat's, not the
-- person's. Own number of a home: hours. Switch it off (key 'off', value 1) for people who cannot get up.
WITH limits AS (
  SELECT h.home_id, least($now, h.complete_to) AS known_to,
    greatest(coalesce(max(CASE WHEN p.key = 'hours' THEN p.value END), 10.0), 1.0) AS hours,
    coalesce(max(CASE WHEN p.key = 'off' THEN p.value END), 0.0) AS is_off
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'bed_overstay'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.complete_to
),
overstays AS (
  SELECT b.home_id, b.bed_id, b.started_at, b.end_known_at, l.known_to, l.hours,
    greatest(plus_minutes(b.started_at, l.hours * 60.0), b.start_known_at) AS raised_at
  FROM episodes b
  JOIN limits l ON l.home_id = b.home_id
  WHERE b.kind = 'in_bed' AND l.is_off < 0.5
)
SELECT CASE WHEN o.bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
  coalesce(o.bed_id, o.home_id) AS subject_id, o.home_id, o.raised_at,
  CASE WHEN o.end_known_at <= o.known_to THEN o.end_known_at END AS cleared_at,
  o.started_at AS in_bed_since, o.hours
FROM overstays o
WHERE o.raised_at <= o.known_to
  AND (o.end_known_at IS NULL OR o.end_known_at > o.raised_at)
