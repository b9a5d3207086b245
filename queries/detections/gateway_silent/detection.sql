-- A gateway that was not heard for five minutes, or at once when the broker says that it has lost it. Since when it was last heard names the
-- silence. While it is part of a larger outage it is quiet: that has an alert of its own.
WITH
-- When in each area so many gateways became silent together that it is one outage and not many: at least three, and at least half of those
-- that were ever heard.
heard AS (
  SELECT area, greatest(ceil(count(*) / 2.0), 3.0) AS enough
  FROM homes
  WHERE complete_to IS NOT NULL
  GROUP BY area
),
edges AS (
  SELECT h.area, e.home_id, e.start_known_at AS at, e.started_at, 1 AS step
  FROM episodes e JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'gateway_silent' AND e.start_known_at <= $now
  UNION ALL
  SELECT h.area, e.home_id, e.end_known_at AS at, e.started_at, -1 AS step
  FROM episodes e JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'gateway_silent' AND e.end_known_at <= $now
),
levels AS (
  SELECT area, home_id, at, started_at, step,
    sum(step) OVER (PARTITION BY area ORDER BY at, step DESC, home_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS n_silent
  FROM edges
),
crossings AS (
  SELECT l.area, l.at, l.started_at, l.home_id, l.n_silent,
    CASE WHEN l.step = 1 AND l.n_silent = h.enough THEN 1 WHEN l.step = -1 AND l.n_silent = h.enough - 1.0 THEN -1 END AS edge
  FROM levels l
  JOIN heard h ON h.area = l.area
),
outages AS (
  SELECT area, at, started_at, home_id, n_silent, edge,
    lead(at) OVER (PARTITION BY area ORDER BY at, edge DESC) AS over_at
  FROM crossings
  WHERE edge IS NOT NULL
),
lasting AS (
  SELECT DISTINCT area FROM outages WHERE edge = 1 AND over_at IS NULL
)
SELECT 'home' AS subject_kind, e.home_id AS subject_id, e.home_id, e.started_at AS raised_at,
  CASE WHEN e.end_known_at <= $now THEN e.end_known_at END AS cleared_at,
  e.started_at AS last_heard_at,
  CASE WHEN o.area IS NOT NULL AND e.end_known_at IS NULL THEN 'gateway_outage' END AS suppressed_by
FROM episodes e
JOIN homes h ON h.home_id = e.home_id
LEFT JOIN lasting o ON o.area = h.area
WHERE e.kind = 'gateway_silent' AND e.start_known_at <= $now
