-- When in each area so many gateways became silent together that it is one outage and not many: at least three, and at least half of those
-- that were ever heard. From the silence that made it one (`started_at`) to when fewer are silent again (`over_at`; none while it lasts).
WITH heard AS (
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
  SELECT l.area, l.at, l.started_at, l.home_id,
    CASE WHEN l.step = 1 AND l.n_silent = h.enough THEN 1 WHEN l.step = -1 AND l.n_silent = h.enough - 1.0 THEN -1 END AS edge
  FROM levels l
  JOIN heard h ON h.area = l.area
),
turns AS (
  SELECT area, started_at, home_id, edge, lead(at) OVER (PARTITION BY area ORDER BY at, edge DESC) AS over_at
  FROM crossings
  WHERE edge IS NOT NULL
)
SELECT area, home_id, started_at, over_at
FROM turns
WHERE edge = 1
