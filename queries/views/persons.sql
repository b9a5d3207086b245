-- title.zh: 服务对象（化名）：何时住在哪张床位；更正姓名或电话即换化名
-- title.en: Persons under a pseudonym: who lay in which bed from when to when; a corrected name or telephone is a new pseudonym
-- grain: person, bed, stay
SELECT id AS person_id, home_id, bed_id, area, valid_from, valid_to FROM registrations WHERE kind = 'person'
