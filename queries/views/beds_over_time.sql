-- title.zh: 床位登记沿革：何时在哪一户
-- title.en: Beds: which home each stood in, and from when to when
-- grain: bed, stretch
SELECT id AS bed_id, home_id, area, valid_from, valid_to FROM registrations WHERE kind = 'bed'
