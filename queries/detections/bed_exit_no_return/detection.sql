-- Out of bed at night, not back. The exit begins between 22:00 and 06:00 by the home's clock, after the person had settled.
-- Raised after 30 minutes when other activity showed that the person got up (or after the person's own usual nights, between 15 and 60:
-- see baselines/night_absence), after 45 when nothing did
-- (defaults on the market cluster at 20 to 30 minutes; a chattering mat is a likelier reason for an exit without activity).
-- A mat that lost the person twice in the last day and a half without anybody having got up is not believed so soon: three hours then
-- (chattering mats lose a sleeper for an hour and more; what moves in the meantime is seen by others).
-- Own numbers of a home: confirmed_minutes, unconfirmed_minutes, chattering_minutes. Below 5 minutes it is not known yet which of the two it is.
WITH limits AS (
  SELECT h.home_id, h.time_zone, least($now, h.complete_to) AS known_to,
    max(CASE WHEN p.key = 'confirmed_minutes' THEN p.value END) AS confirmed_minutes,
    greatest(coalesce(max(CASE WHEN p.key = 'unconfirmed_minutes' THEN p.value END), 45.0), 5.0) AS unconfirmed_minutes,
    greatest(coalesce(max(CASE WHEN p.key = 'chattering_minutes' THEN p.value END), 180.0), 5.0) AS chattering_minutes
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'bed_exit_no_return'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.time_zone, h.complete_to
),
exits AS (
  SELECT e.home_id, e.bed_id, e.started_at AS left_at, e.start_known_at, e.end_known_at, l.known_to,
    attribute(e.attributes, 'confirmed') = 'true' AS confirmed,
    l.time_zone,
    CASE WHEN attribute(e.attributes, 'confirmed') = 'true'
        THEN greatest(coalesce(l.confirmed_minutes, u.value, 30.0), 5.0)
      WHEN CAST(attribute(e.attributes, 'drop_outs') AS BIGINT) >= 2 THEN greatest(l.chattering_minutes, l.unconfirmed_minutes)
      ELSE l.unconfirmed_minutes END AS minutes,
    date_part('hour', local_time(e.started_at, l.time_zone)) AS local_hour
  FROM episodes e
  JOIN limits l ON l.home_id = e.home_id
  -- The person's own, as it was known when the bed was left.
  LEFT JOIN usual u ON u.baseline = 'night_absence' AND u.home_id = e.home_id AND u.bed_id = e.bed_id
    AND u.known_at <= e.started_at AND u.known_until > e.started_at
  WHERE e.kind = 'out_of_bed'
),
-- When each exit crosses its limit; what was not known at that instant may not count.
crossings AS (
  SELECT *, date_part('hour', local_time(raised_at, time_zone)) + date_part('minute', local_time(raised_at, time_zone)) / 60.0 AS raised_hour
  FROM (SELECT *, greatest(plus_minutes(left_at, minutes), start_known_at) AS raised_at FROM exits WHERE local_hour >= 22 OR local_hour < 6) e
),
-- Who is up after half past four and moves about has begun the day: that is only told when nothing moves at the limit.
still AS (
  SELECT DISTINCT c.home_id, c.left_at
  FROM crossings c
  JOIN episodes q ON q.kind = 'quiet' AND q.home_id = c.home_id
    AND q.start_known_at <= c.raised_at AND (q.end_known_at IS NULL OR q.end_known_at > c.raised_at)
),
away AS (
  SELECT home_id, start_known_at, end_known_at FROM episodes WHERE kind = 'away'
),
-- Who is known to have left the home later is not lying beside the bed: that ends the finding too.
overs AS (
  SELECT c.home_id, c.bed_id, c.left_at, min(a.start_known_at) AS away_known_at
  FROM crossings c
  JOIN away a ON a.home_id = c.home_id AND a.start_known_at > c.raised_at
  GROUP BY c.home_id, c.bed_id, c.left_at
)
SELECT
  CASE WHEN c.bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
  coalesce(c.bed_id, c.home_id) AS subject_id,
  c.home_id, c.raised_at,
  CASE WHEN least(c.end_known_at, o.away_known_at) <= c.known_to
    THEN least(c.end_known_at, o.away_known_at) END AS cleared_at,
  c.left_at, c.confirmed, c.minutes
FROM crossings c
LEFT JOIN overs o
  ON o.home_id = c.home_id AND o.left_at = c.left_at AND (o.bed_id IS NOT DISTINCT FROM c.bed_id)
LEFT JOIN still s ON s.home_id = c.home_id AND s.left_at = c.left_at
WHERE c.raised_at <= c.known_to
  AND (c.raised_hour < 4.5 OR c.raised_hour >= 22.0 OR s.home_id IS NOT NULL)
  AND (c.end_known_at IS NULL OR c.end_known_at > c.raised_at)
  -- Not while the home is known to be empty.
  AND NOT EXISTS (
    SELECT 1 FROM away a
    WHERE a.home_id = c.home_id
      AND a.start_known_at <= c.raised_at
      AND (a.end_known_at IS NULL OR a.end_known_at > c.raised_at))
