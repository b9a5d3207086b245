-- A call for help: presses of one person's buttons, each within ten minutes of the one before, are one call.
-- It is raised by the press alone, whatever else of the home's data is still missing, and also when the home's clock is ahead.
WITH presses AS (
  SELECT
    CASE WHEN bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
    coalesce(bed_id, home_id) AS subject_id,
    home_id, room, started_at, end_known_at,
    lag(started_at) OVER (PARTITION BY home_id, bed_id ORDER BY started_at) AS press_before
  FROM episodes
  WHERE kind = 'call'
),
numbered AS (
  SELECT *,
    sum(CASE WHEN press_before IS NULL OR started_at > plus_minutes(press_before, 10) THEN 1 ELSE 0 END)
      OVER (PARTITION BY home_id, subject_kind, subject_id ORDER BY started_at) AS call_number
  FROM presses
),
calls AS (
  SELECT subject_kind, subject_id, home_id,
    min(started_at) AS raised_at,
    -- Over when every button has been let go and ten minutes have passed without another press.
    CASE WHEN bool_and(end_known_at IS NOT NULL) THEN plus_minutes(max(end_known_at), 10) END AS over_at,
    count(*) AS presses,
    max(started_at) AS last_press_at,
    first_value(room ORDER BY started_at, room) AS room
  FROM numbered
  GROUP BY subject_kind, subject_id, home_id, call_number
)
SELECT c.subject_kind, c.subject_id, c.home_id, c.raised_at,
  CASE WHEN c.over_at <= least($now, h.complete_to) AND h.complete_to IS NOT NULL THEN c.over_at END AS cleared_at,
  c.presses, c.last_press_at, c.room
FROM calls c
LEFT JOIN homes h ON h.home_id = c.home_id
