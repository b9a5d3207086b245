-- Away for too long: inferred to be out for longer than is usual for this person (baselines/absences: 4 to 24 hours), 24 hours where that is not
-- known (key 'hours', 4 to 48), or a planned absence is over and the home is still as quiet as
-- it was an hour later. The door was the last that moved; the next activity of any kind ends it.
WITH limits AS (
  SELECT h.home_id, least($now, h.complete_to) AS known_to,
    max(CASE WHEN p.key = 'hours' THEN p.value END) AS hours
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'away_too_long'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.complete_to
),
-- An inferred absence expires by itself; the quiet that began with it goes on.
inferred AS (
  SELECT a.home_id, a.started_at AS left_at, q.end_known_at, l.known_to, false AS planned,
    greatest(plus_minutes(a.started_at, least(greatest(coalesce(l.hours, u.value / 60.0, 24.0), 4.0), 48.0) * 60.0), a.start_known_at)
      AS raised_at
  FROM episodes a
  JOIN limits l ON l.home_id = a.home_id
  JOIN episodes q ON q.kind = 'quiet' AND q.home_id = a.home_id AND q.started_at = a.started_at
  -- The person's own, as it was known on leaving.
  LEFT JOIN usual u ON u.baseline = 'absences' AND u.home_id = a.home_id
    AND u.known_at <= a.started_at AND u.known_until > a.started_at
  WHERE a.kind = 'away'
),
planned AS (
  SELECT i.home_id, q.started_at AS left_at, q.end_known_at, l.known_to, true AS planned,
    greatest(plus_minutes(i.ended_at, 60.0), i.entered_at, q.start_known_at) AS raised_at
  FROM intervals i
  JOIN limits l ON l.home_id = i.home_id
  JOIN episodes q ON q.kind = 'quiet' AND q.home_id = i.home_id
    AND q.started_at <= i.ended_at AND (q.end_known_at IS NULL OR q.end_known_at > i.ended_at)
  WHERE i.kind = 'away'
)
SELECT 'home' AS subject_kind, o.home_id AS subject_id, o.home_id, o.raised_at,
  CASE WHEN o.end_known_at <= o.known_to THEN o.end_known_at END AS cleared_at,
  o.left_at, o.planned,
  CASE WHEN o.planned THEN 'P3' ELSE 'P2' END AS priority
FROM (SELECT * FROM inferred UNION ALL SELECT * FROM planned) o
WHERE o.raised_at <= o.known_to
  AND (o.end_known_at IS NULL OR o.end_known_at > o.raised_at)
