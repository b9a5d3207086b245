-- Breathing stops fifteen times within an hour (how often is our own proposal, near what sleep medicine calls moderate; a pause: see
-- episodes/apnea.toml). Over when an hour has passed without such an hour.
WITH pauses AS (
  SELECT e.home_id, e.bed_id, e.started_at, e.start_known_at, least($now, h.complete_to) AS known_to,
    lag(e.started_at, 14) OVER (PARTITION BY e.home_id, e.bed_id ORDER BY e.started_at) AS fourteen_before
  FROM episodes e
  JOIN homes h ON h.home_id = e.home_id AND h.complete_to IS NOT NULL
  WHERE e.kind = 'apnea' AND e.bed_id IS NOT NULL
),
many AS (
  SELECT *, lag(started_at) OVER (PARTITION BY home_id, bed_id ORDER BY started_at) AS before
  FROM pauses
  WHERE fourteen_before > plus_minutes(started_at, -60.0) AND start_known_at <= known_to
),
numbered AS (
  SELECT *, sum(CASE WHEN before IS NULL OR before <= plus_minutes(started_at, -60.0) THEN 1 ELSE 0 END)
    OVER (PARTITION BY home_id, bed_id ORDER BY started_at) AS stretch
  FROM many
),
stretches AS (
  SELECT home_id, bed_id, known_to, min(start_known_at) AS raised_at, plus_minutes(max(started_at), 60.0) AS over_at,
    min(fourteen_before) AS first_at, count(*) + 14 AS pauses
  FROM numbered
  GROUP BY home_id, bed_id, known_to, stretch
)
SELECT 'bed' AS subject_kind, bed_id AS subject_id, home_id, raised_at,
  CASE WHEN over_at <= known_to THEN over_at END AS cleared_at, first_at, pauses
FROM stretches
