-- In bed and not turned for two hours: see episodes/not_turned.toml. Whoever visits looks after that too: the two hours begin anew when they
-- leave. Only for people who must be turned: key 'on', value 1.
WITH limits AS (
  SELECT h.home_id, least($now, h.complete_to) AS known_to
  FROM homes h
  JOIN params p ON p.home_id = h.home_id AND p.detection = 'no_turning' AND p.key = 'on' AND p.value >= 0.5
  WHERE h.complete_to IS NOT NULL
),
stills AS (
  SELECT v.home_id, v.bed_id, v.started_at, v.end_known_at, l.known_to,
    greatest(v.start_known_at, plus_minutes(max(i.ended_at), 120.0)) AS raised_at
  FROM episodes v
  JOIN limits l ON l.home_id = v.home_id
  LEFT JOIN intervals i ON i.kind = 'visit' AND i.home_id = v.home_id AND (i.bed_id IS NULL OR i.bed_id = v.bed_id)
    AND i.entered_at <= v.start_known_at AND i.started_at < v.start_known_at AND i.ended_at > v.started_at
  WHERE v.kind = 'not_turned'
  GROUP BY v.home_id, v.bed_id, v.started_at, v.start_known_at, v.end_known_at, l.known_to
)
SELECT CASE WHEN v.bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
  coalesce(v.bed_id, v.home_id) AS subject_id, v.home_id, v.raised_at,
  CASE WHEN v.end_known_at <= v.known_to THEN v.end_known_at END AS cleared_at,
  v.started_at AS last_moved_at
FROM stills v
WHERE v.raised_at <= v.known_to
  AND (v.end_known_at IS NULL OR v.end_known_at > v.raised_at)
