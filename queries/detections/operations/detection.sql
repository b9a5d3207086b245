-- A visit that is due: the last one ended longer ago than the person's class of visits allows (key 'visit_every_days': 7, 31 or 92 for
-- weekly, monthly, quarterly). Homes without that number are not asked about, nor is one without any visit yet.
WITH limits AS (
  SELECT h.home_id, p.value AS days
  FROM homes h
  JOIN params p ON p.home_id = h.home_id AND p.detection = 'operations' AND p.key = 'visit_every_days' AND p.value >= 1.0
),
visits AS (
  SELECT i.home_id, i.ended_at, i.entered_at, l.days,
    lead(i.ended_at) OVER (PARTITION BY i.home_id ORDER BY i.ended_at, i.entered_at) AS next_ended_at,
    lead(i.entered_at) OVER (PARTITION BY i.home_id ORDER BY i.ended_at, i.entered_at) AS next_entered_at
  FROM intervals i
  JOIN limits l ON l.home_id = i.home_id
  WHERE i.kind = 'visit' AND greatest(i.ended_at, i.entered_at) <= $now
),
dues AS (
  SELECT *, plus_minutes(ended_at, days * 1440.0) AS raised_at, greatest(next_ended_at, next_entered_at) AS done_at
  FROM visits
)
SELECT 'home' AS subject_kind, home_id AS subject_id, home_id, raised_at, done_at AS cleared_at,
  ended_at AS last_visit_at, days
FROM dues
WHERE raised_at <= $now AND (done_at IS NULL OR done_at > raised_at)
