-- A gateway's clock is more than a minute ahead of the centre's: it tells what it has observed at a time that has not come. Or it is more
-- than a quarter of an hour behind: its data has been so late for ten minutes though nothing is on its way (see signs.rs).
SELECT 'home' AS subject_kind, e.home_id AS subject_id, e.home_id, e.start_known_at AS raised_at,
  CASE WHEN e.end_known_at <= $now THEN e.end_known_at END AS cleared_at, e.started_at AS since, e.kind AS trouble
FROM episodes e
WHERE e.kind IN ('clock_ahead', 'clock_behind') AND e.start_known_at <= $now
