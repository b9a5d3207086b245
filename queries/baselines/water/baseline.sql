-- On which share of the days of the last 60 this home crossed each rung of the water limits (`key`: water_little, water_raised, water_high; see
-- episodes/water_*.toml): a rung that is crossed on more than three of a hundred days (little), or one of a hundred (much), is usual, which is
-- the person's own 3rd and 99th percentile. Needs 28 days on which water was drawn.
WITH days AS (
  SELECT DISTINCT e.home_id, e.kind, date_trunc('day', local_time(e.start_known_at, h.time_zone)) AS day,
    min(e.start_known_at) OVER (PARTITION BY e.home_id, e.kind, date_trunc('day', local_time(e.start_known_at, h.time_zone))) AS known_at
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind IN ('water_drawn', 'water_little', 'water_raised', 'water_high')
    -- What happened while nobody was there, or while somebody worked on the pipes, is not usual.
    AND NOT EXISTS (
      SELECT 1 FROM unusual u
      WHERE u.home_id = e.home_id AND u.known_at <= e.start_known_at
        AND u.started_at <= e.start_known_at
        AND u.ended_at > plus_minutes(e.start_known_at, CASE e.kind WHEN 'water_little' THEN -720.0 ELSE 0.0 END))
),
nights AS (
  SELECT DISTINCT home_id, known_at FROM asked
),
drawn AS (
  SELECT n.home_id, n.known_at, count(*) AS n_days
  FROM nights n
  JOIN days d ON d.home_id = n.home_id AND d.kind = 'water_drawn' AND d.known_at <= n.known_at
    AND d.known_at > plus_minutes(n.known_at, -86400.0)
  GROUP BY n.home_id, n.known_at
  HAVING count(*) >= 28
)
SELECT n.home_id, CAST(NULL AS VARCHAR) AS bed_id, rungs.key AS "key", CAST(NULL AS BIGINT) AS slot, n.known_at,
  count(d.day) / CAST(n.n_days AS DOUBLE) AS value, n.n_days
FROM drawn n
CROSS JOIN unnest(['water_little', 'water_raised', 'water_high']) AS rungs(key)
LEFT JOIN days d ON d.home_id = n.home_id AND d.kind = rungs.key AND d.known_at <= n.known_at
  AND d.known_at > plus_minutes(n.known_at, -86400.0)
GROUP BY n.home_id, n.known_at, n.n_days, rungs.key
