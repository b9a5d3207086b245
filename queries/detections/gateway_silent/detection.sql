-- A gateway that was not heard for five minutes, or that the broker has lost for twenty seconds: by then it is known whether its neighbours went
-- with it, and whoever is back by then was never gone. Since when it was last heard names the silence. While it is part of a larger outage (see
-- shared/outages.sql) it is quiet: that has an alert of its own.
WITH lasting AS (
  SELECT DISTINCT area FROM outages WHERE over_at IS NULL
),
silences AS (
  SELECT home_id, started_at, end_known_at,
    greatest(start_known_at, least(plus_minutes(start_known_at, 1.0 / 3.0), plus_minutes(started_at, 5.0))) AS told_at
  FROM episodes
  WHERE kind = 'gateway_silent'
)
SELECT 'home' AS subject_kind, e.home_id AS subject_id, e.home_id, e.started_at AS raised_at,
  CASE WHEN e.end_known_at <= $now THEN e.end_known_at END AS cleared_at,
  e.started_at AS last_heard_at,
  CASE WHEN o.area IS NOT NULL AND e.end_known_at IS NULL THEN 'gateway_outage' END AS suppressed_by
FROM silences e
JOIN homes h ON h.home_id = e.home_id
LEFT JOIN lasting o ON o.area = h.area
WHERE e.told_at <= $now AND (e.end_known_at IS NULL OR e.end_known_at > e.told_at)
