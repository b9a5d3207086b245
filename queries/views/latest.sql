-- title.zh: 各设备最新观测值
-- title.en: Last value of every device and quantity
-- grain: home, bed, device, quantity
SELECT home_id, bed_id, device_id, quantity,
  max(event_time) AS event_time,
  last_value(value ORDER BY event_time, received_time) AS value,
  last_value(text ORDER BY event_time, received_time) AS text,
  last_value(unit ORDER BY event_time, received_time) AS unit,
  last_value(quality ORDER BY event_time, received_time) AS quality
FROM observations
GROUP BY home_id, bed_id, device_id, quantity
