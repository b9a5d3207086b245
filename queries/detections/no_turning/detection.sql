-- In bed and not turned for two hours: see episodes/not_turned.toml. Only for people who must be turned: key 'on', value 1.
WITH limits AS (
  SELECT h.home_id, least($now, h.complete_to) AS known_to
  FROM homes h
  JOIN params p ON p.home_id = h.home_id AND p.detection = 'no_turning' AND p.key = 'on' AND p.value >= 0.5
  WHERE h.complete_to IS NOT NULL
)
SELECT CASE WHEN v.bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
  coalesce(v.bed_id, v.home_id) AS subject_id, v.home_id, v.start_known_at AS raised_at,
  CASE WHEN v.end_known_at <= l.known_to THEN v.end_known_at END AS cleared_at,
  v.started_at AS last_moved_at
FROM episodes v
JOIN limits l ON l.home_id = v.home_id
WHERE v.kind = 'not_turned'
  AND v.start_known_at <= l.known_to
  AND (v.end_known_at IS NULL OR v.end_known_at > v.start_known_at)
