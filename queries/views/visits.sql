-- title.zh: 登记的上门探访
-- title.en: Visits that were entered
-- grain: home, visit
SELECT home_id, bed_id, started_at, ended_at, entered_at FROM intervals WHERE kind = 'visit'
