-- title.zh: 告警处置时间：响铃、受理、派出、到场、办结
-- title.en: How each alert went: rung, acknowledged, dispatched, on site, resolved
-- grain: alert
SELECT alert, min(detection) AS detection, min(home_id) AS home_id, min(bed_id) AS bed_id, min(area) AS area,
  min(class) AS class, min(priority) AS priority, min(raised_at) AS raised_at,
  min(at) FILTER (WHERE rings) AS rang_at,
  min(at) FILTER (WHERE change = 'acknowledged') AS acknowledged_at,
  min(at) FILTER (WHERE change = 'dispatched') AS dispatched_at,
  min(at) FILTER (WHERE change = 'arrived') AS arrived_at,
  max(at) FILTER (WHERE change = 'resolved') AS resolved_at,
  last_value(outcome ORDER BY number) FILTER (WHERE change = 'resolved') AS outcome,
  (CAST(min(at) FILTER (WHERE change = 'acknowledged') AS bigint) - CAST(min(at) FILTER (WHERE rings) AS bigint)) / 1000.0
    AS seconds_to_acknowledge,
  (CAST(min(at) FILTER (WHERE change = 'arrived') AS bigint) - CAST(min(at) FILTER (WHERE rings) AS bigint)) / 60000.0
    AS minutes_to_arrive
FROM alerts
GROUP BY alert
