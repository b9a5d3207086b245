-- A gateway's clock is more than a minute ahead of the centre's: it tells what it has observed at a time that has not come.
SELECT 'home' AS subject_kind, e.home_id AS subject_id, e.home_id, e.started_at AS raised_at,
  CASE WHEN e.end_known_at <= $now THEN e.end_known_at END AS cleared_at, e.started_at AS since
FROM episodes e
WHERE e.kind = 'clock_ahead' AND e.start_known_at <= $now
