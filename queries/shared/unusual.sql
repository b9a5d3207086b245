-- Times that teach nothing of what is usual, and since when that is known: what somebody said (`kind` 'away', 'visit', 'hospital', 'maintenance', or
-- 'incident' for what really was the matter), a home that the doors say was empty ('empty'), and times at which nobody watched ('unobserved').
SELECT home_id, bed_id, kind, started_at, ended_at, entered_at AS known_at FROM intervals
UNION ALL
SELECT home_id, NULL, CASE kind WHEN 'away' THEN 'empty' ELSE kind END, started_at, coalesce(ended_at, $now), start_known_at
FROM episodes
WHERE kind IN ('away', 'unobserved')
