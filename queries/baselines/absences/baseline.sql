-- How long this person is out: the 97th percentile of the absences inferred in the last 30 days and a third more, between 4 and 24 hours (the
-- form is Cuddihy's). Needs ten absences on seven days. An absence that ran out after 24 hours may have lasted longer: it counts as that long.
WITH absences AS (
  SELECT e.home_id, e.started_at, e.ended_at, e.end_known_at, minutes_between(e.started_at, e.ended_at) AS minutes,
    date_trunc('day', local_time(e.started_at, h.time_zone)) AS day
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id
  WHERE e.kind = 'away' AND e.ended_at IS NOT NULL
),
-- What somebody has said of such a time (a journey, a hospital, a visit) is no everyday absence, as soon as it is known.
said AS (
  SELECT a.home_id, a.started_at, min(i.entered_at) AS said_at
  FROM absences a
  JOIN intervals i ON i.home_id = a.home_id AND i.started_at < a.ended_at AND i.ended_at > a.started_at
  GROUP BY a.home_id, a.started_at
)
SELECT s.home_id, CAST(NULL AS VARCHAR) AS bed_id, CAST(NULL AS VARCHAR) AS key, CAST(NULL AS BIGINT) AS slot, a.known_at,
  least(greatest(1.3 * percentile_cont(s.minutes, 0.97), 240.0), 1440.0) AS value, count(DISTINCT s.day) AS n_days
FROM (SELECT DISTINCT home_id, known_at FROM asked) a
JOIN absences s ON s.home_id = a.home_id AND s.end_known_at <= a.known_at AND s.started_at > plus_minutes(a.known_at, -43200.0)
LEFT JOIN said n ON n.home_id = s.home_id AND n.started_at = s.started_at
WHERE n.said_at IS NULL OR n.said_at > a.known_at
GROUP BY s.home_id, a.known_at
HAVING count(DISTINCT s.day) >= 7 AND count(*) >= 10
