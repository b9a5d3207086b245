-- title.zh: 设备在线率
-- title.en: Uptime of devices
-- grain: home, device
SELECT h.area, d.home_id, d.device_id, d.first_seen, d.last_good, d.n_silences, d.minutes_silent,
  d.minutes_unheard, d.uptime_share, d.good_share, d.silent_now
FROM device_health d
LEFT JOIN homes h ON h.home_id = d.home_id
ORDER BY d.uptime_share, d.home_id, d.device_id
