-- A device says that somebody fell. Raised by its word alone, at once.
SELECT CASE WHEN e.bed_id IS NULL THEN 'home' ELSE 'bed' END AS subject_kind,
  coalesce(e.bed_id, e.home_id) AS subject_id, e.home_id, e.started_at AS raised_at,
  CASE WHEN e.end_known_at <= least($now, h.complete_to) AND h.complete_to IS NOT NULL THEN e.end_known_at END AS cleared_at,
  e.room
FROM episodes e
LEFT JOIN homes h ON h.home_id = e.home_id
WHERE e.kind = 'fall_reported'
