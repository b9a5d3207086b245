-- Not in bed two hours after this person is there at the latest (baselines/bed_times; working days and weekends apart), or by 01:00 by the
-- home's clock (two hours after a usual bedtime of 23:00) where that is not known; at home, and not just up for a moment: the bed has been
-- empty for four hours then. Own number of a home: hour, as 1.5 for half past one. Only beds that were slept in lately.
WITH limits AS (
  SELECT h.home_id, h.time_zone, least($now, h.complete_to) AS known_to,
    max(CASE WHEN p.key = 'hour' THEN p.value END) AS "hour"
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'not_in_bed'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.time_zone, h.complete_to
),
-- From each end of a stay in bed to the next stay.
empty AS (
  SELECT b.home_id, b.bed_id, b.ended_at AS left_at, b.end_known_at AS left_known_at,
    lead(b.start_known_at) OVER (PARTITION BY b.home_id, b.bed_id ORDER BY b.started_at) AS back_known_at
  FROM episodes b
  WHERE b.kind = 'in_bed'
),
-- The night that the bed may be missed in: that of the first one o'clock after it has been empty for four hours.
nights AS (
  SELECT e.*, l.known_to, l.time_zone, l."hour",
    CASE WHEN date_part('dow', local_time(plus_minutes(next_at_hour(plus_minutes(e.left_at, 240.0), l.time_zone, 1.0), -720.0),
        l.time_zone)) IN (5, 6) THEN 'to_bed/weekend' ELSE 'to_bed/weekday' END AS key
  FROM empty e
  JOIN limits l ON l.home_id = e.home_id
  WHERE e.left_at IS NOT NULL
),
crossings AS (
  SELECT n.*,
    greatest(next_at_hour(plus_minutes(n.left_at, 240.0), n.time_zone, coalesce(n."hour", u.value + 14.0, 1.0)), n.left_known_at)
      AS raised_at
  FROM nights n
  LEFT JOIN usual u ON u.baseline = 'bed_times' AND u.home_id = n.home_id AND u.bed_id = n.bed_id AND u.key = n.key
    AND u.known_at <= n.left_at AND u.known_until > n.left_at
)
SELECT CASE WHEN c.bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
  coalesce(c.bed_id, c.home_id) AS subject_id, c.home_id, c.raised_at,
  CASE WHEN c.back_known_at <= c.known_to THEN c.back_known_at END AS cleared_at,
  c.left_at AS last_in_bed_at
FROM crossings c
WHERE c.raised_at <= c.known_to
  AND (c.back_known_at IS NULL OR c.back_known_at > c.raised_at)
  AND NOT EXISTS (
    SELECT 1 FROM episodes a
    WHERE a.kind = 'away' AND a.home_id = c.home_id
      AND a.start_known_at <= c.raised_at
      AND (a.end_known_at IS NULL OR a.end_known_at > c.raised_at))
