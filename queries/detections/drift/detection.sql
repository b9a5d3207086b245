-- What the nights were like lately is not what they were before, or the person has not been out for longer than ever: see baselines/drift.
-- Said each midnight anew, for a day.
WITH said AS (
  SELECT b.home_id, b.bed_id, b.known_at, least($now, h.complete_to) AS known_to, b.key AS figure, b.value AS lately, u.value AS usual
  FROM baselines b
  JOIN homes h ON h.home_id = b.home_id AND h.complete_to IS NOT NULL
  JOIN baselines u ON u.baseline = 'drift' AND u.home_id = b.home_id AND (u.bed_id IS NOT DISTINCT FROM b.bed_id)
    AND u.known_at = b.known_at AND u.key = b.key || '/usual'
  WHERE b.baseline = 'drift'
)
SELECT CASE WHEN bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind, coalesce(bed_id, home_id) AS subject_id, home_id,
  known_at AS raised_at,
  CASE WHEN plus_minutes(known_at, 1440.0) <= known_to THEN plus_minutes(known_at, 1440.0) END AS cleared_at,
  first_value(figure ORDER BY figure) AS figure, round(10.0 * first_value(lately ORDER BY figure)) / 10.0 AS lately,
  round(10.0 * first_value(usual ORDER BY figure)) / 10.0 AS usual, count(*) AS n_figures
FROM said
WHERE known_at <= known_to
GROUP BY home_id, bed_id, known_at, known_to
