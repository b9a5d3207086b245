-- One alert for an outage that takes many homes at once: a broker, a mobile network, a power cut of a quarter (see shared/outages.sql).
WITH silent AS (
  -- How many it has taken by now.
  SELECT h.area, count(*) AS n_homes
  FROM episodes e JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'gateway_silent' AND e.start_known_at <= $now AND e.end_known_at IS NULL
  GROUP BY h.area
)
SELECT 'area' AS subject_kind, o.area AS subject_id, o.home_id, o.started_at AS raised_at, o.over_at AS cleared_at,
  coalesce(s.n_homes, 0) AS n_homes
FROM outages o
LEFT JOIN silent s ON s.area = o.area
