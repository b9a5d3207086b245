-- In bed, and the mat that gives heart rate or breathing has given neither for a while: see episodes/vitals_lost.toml.
-- The mat itself answers, else the bed would not be known to be taken; a mat that does not answer is another detection's business.
SELECT CASE WHEN v.bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
  coalesce(v.bed_id, v.home_id) AS subject_id, v.home_id, v.start_known_at AS raised_at,
  CASE WHEN v.end_known_at <= least($now, h.complete_to) THEN v.end_known_at END AS cleared_at,
  v.started_at AS last_at
FROM episodes v
JOIN homes h ON h.home_id = v.home_id AND h.complete_to IS NOT NULL
WHERE v.kind = 'vitals_lost'
  AND v.start_known_at <= least($now, h.complete_to)
  AND (v.end_known_at IS NULL OR v.end_known_at > v.start_known_at)
