-- A gateway that was not heard for five minutes, or at once when the broker says that it has lost it. Since when it was last heard names the
-- silence. While it is part of a larger outage (see shared/outages.sql) it is quiet: that has an alert of its own.
WITH lasting AS (
  SELECT DISTINCT area FROM outages WHERE over_at IS NULL
)
SELECT 'home' AS subject_kind, e.home_id AS subject_id, e.home_id, e.started_at AS raised_at,
  CASE WHEN e.end_known_at <= $now THEN e.end_known_at END AS cleared_at,
  e.started_at AS last_heard_at,
  CASE WHEN o.area IS NOT NULL AND e.end_known_at IS NULL THEN 'gateway_outage' END AS suppressed_by
FROM episodes e
JOIN homes h ON h.home_id = e.home_id
LEFT JOIN lasting o ON o.area = h.area
WHERE e.kind = 'gateway_silent' AND e.start_known_at <= $now
