-- title.zh: 登记的上门探访
-- title.en: Visits that were entered
-- grain: home, visit
SELECT i.home_id, i.bed_id, h.area, i.started_at, i.ended_at, i.entered_at
FROM intervals i
LEFT JOIN homes h ON h.home_id = i.home_id
WHERE i.kind = 'visit'
