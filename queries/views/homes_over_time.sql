-- title.zh: 住户登记沿革：何时属于哪个辖区（事件按时间点关联用）
-- title.en: Homes: which area each belonged to, and from when to when
-- grain: home, stretch
SELECT id AS home_id, area, valid_from, valid_to FROM registrations WHERE kind = 'home'
