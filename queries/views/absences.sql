-- title.zh: 登记的外出与住院
-- title.en: Absences that were entered: away or in hospital
-- grain: home, absence
SELECT home_id, bed_id, kind, started_at, ended_at, entered_at FROM intervals WHERE kind IN ('away', 'hospital')
