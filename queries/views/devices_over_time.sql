-- title.zh: 设备登记沿革：何时在哪一户、属于哪张床
-- title.en: Devices: which home and bed each belonged to, and from when to when
-- grain: home, device, stretch
SELECT home_id, id AS device_id, bed_id, area, valid_from, valid_to FROM registrations WHERE kind = 'device'
