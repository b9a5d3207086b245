-- title.zh: 近七日有数据的设备及其位置
-- title.en: Devices that were heard in the last seven days, and where they are
-- grain: home, device
SELECT area, home_id, bed_id, device_id, room, max(event_time) AS last_seen
FROM latest GROUP BY area, home_id, bed_id, device_id, room
