-- title.zh: 设备状态：最近数据、好值比例、无应答时段
-- title.en: Devices: last data, share of good values, stretches without an answer
-- grain: home, device
WITH heard AS (
  SELECT home_id, device_id, min(event_time) AS first_seen, max(event_time) AS last_seen,
    max(event_time) FILTER (WHERE quality = 'good') AS last_good,
    avg(CASE WHEN quality = 'good' THEN 1.0 ELSE 0.0 END) AS good_share, count(*) AS n_observations
  FROM observations GROUP BY home_id, device_id
), silent AS (
  SELECT e.home_id, e.device_id, count(*) AS n_silences,
    sum((CAST(coalesce(e.ended_at, h.complete_to) AS bigint) - CAST(e.started_at AS bigint)) / 60000.0) AS minutes_silent,
    bool_or(e.ended_at IS NULL) AS silent_now
  FROM episodes e JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'device_silent'
  GROUP BY e.home_id, e.device_id
), unheard AS (
  -- Whose gateway is heard is complete up to a few minutes ago.
  SELECT home_id, CASE WHEN minutes > 5.0 THEN minutes ELSE 0.0 END AS minutes
  FROM (SELECT home_id, (CAST(now() AS bigint) / 1000000 - CAST(complete_to AS bigint)) / 60000.0 AS minutes FROM homes)
)
SELECT d.home_id, d.device_id, d.first_seen, d.last_seen, d.last_good, d.good_share, d.n_observations,
  coalesce(s.n_silences, 0) AS n_silences, coalesce(s.minutes_silent, 0.0) AS minutes_silent,
  coalesce(u.minutes, 0.0) AS minutes_unheard,
  coalesce(s.silent_now, false) OR coalesce(u.minutes, 0.0) > 0.0 AS silent_now,
  greatest(0.0, 1.0 - (coalesce(s.minutes_silent, 0.0) + coalesce(u.minutes, 0.0))
    / greatest((CAST(greatest(d.last_seen, coalesce(h.complete_to, d.last_seen)) AS bigint)
      - CAST(d.first_seen AS bigint)) / 60000.0 + coalesce(u.minutes, 0.0), 1.0)) AS uptime_share
FROM heard d
LEFT JOIN homes h ON h.home_id = d.home_id
LEFT JOIN unheard u ON u.home_id = d.home_id
LEFT JOIN silent s ON s.home_id = d.home_id AND s.device_id = d.device_id
