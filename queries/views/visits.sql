-- title.zh: 登记的上门探访
-- title.en: Visits that were entered
-- grain: home, visit
-- A home that has moved: where it was then.
SELECT i.home_id, i.bed_id, coalesce(o.area, h.area) AS area, i.started_at, i.ended_at, i.entered_at
FROM intervals i
LEFT JOIN homes h ON h.home_id = i.home_id
LEFT JOIN homes_over_time o ON o.home_id = i.home_id AND o.valid_from <= i.started_at
  AND (o.valid_to IS NULL OR i.started_at < o.valid_to)
WHERE i.kind = 'visit'
