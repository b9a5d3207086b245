-- The home is quiet for longer than is usual for this person: longer than the limit that the baseline `inactivity` held for the room and the
-- half hour in which the quiet began, as it was known then. Never before two hours; after twelve, `inactivity_cap` takes over; without seven
-- days of learning, or with several people in the home, it is alone.
WITH quiets AS (
  SELECT q.home_id, q.started_at, q.start_known_at, q.end_known_at, least($now, h.complete_to) AS known_to,
    coalesce(q.room, q.device_id, '') AS room,
    CAST(floor((date_part('hour', local_time(q.started_at, h.time_zone)) * 60.0
      + date_part('minute', local_time(q.started_at, h.time_zone))) / 30.0) AS BIGINT) AS slot
  FROM watched_quiets q
  JOIN homes h ON h.home_id = q.home_id
  WHERE h.complete_to IS NOT NULL AND h.residents <= 1
    -- No limit is shorter.
    AND plus_minutes(q.started_at, 120.0) <= coalesce(q.end_known_at, least($now, h.complete_to))
),
-- The newest limit known when the quiet began: the room's own, or that of all rooms where nobody was ever there at that hour.
crossings AS (
  SELECT q.home_id, q.started_at, q.end_known_at, q.known_to,
    first_value(b.value ORDER BY b.known_at DESC, b.key NULLS LAST) AS minutes,
    first_value(b.n_days ORDER BY b.known_at DESC, b.key NULLS LAST) AS n_days,
    greatest(plus_minutes(q.started_at, first_value(b.value ORDER BY b.known_at DESC, b.key NULLS LAST)), q.start_known_at)
      AS crosses_at
  FROM quiets q
  JOIN baselines b ON b.baseline = 'inactivity' AND b.home_id = q.home_id AND b.slot = q.slot
    AND (b.key IS NULL OR b.key = q.room)
    AND b.known_at <= q.started_at AND b.known_at > plus_minutes(q.started_at, -2880.0)
  GROUP BY q.home_id, q.started_at, q.start_known_at, q.end_known_at, q.known_to
),
-- Where the home was inferred to be empty at the crossing: until when, if that is known.
covered AS (
  SELECT c.home_id, c.started_at,
    CASE WHEN bool_or(a.end_known_at IS NULL) THEN NULL ELSE max(a.end_known_at) END AS away_until
  FROM crossings c
  JOIN episodes a ON a.kind = 'away' AND a.home_id = c.home_id
    AND a.start_known_at <= c.crosses_at
    AND (a.end_known_at IS NULL OR a.end_known_at > c.crosses_at)
  GROUP BY c.home_id, c.started_at
),
raised AS (
  SELECT c.*,
    CASE WHEN v.home_id IS NULL THEN c.crosses_at ELSE v.away_until END AS raised_at
  FROM crossings c
  LEFT JOIN covered v ON v.home_id = c.home_id AND v.started_at = c.started_at
)
SELECT 'home' AS subject_kind, r.home_id AS subject_id, r.home_id, r.raised_at,
  CASE WHEN r.end_known_at <= r.known_to THEN r.end_known_at END AS cleared_at,
  r.started_at AS last_activity_at, r.minutes, r.n_days
FROM raised r
WHERE r.raised_at <= r.known_to
  AND (r.end_known_at IS NULL OR r.end_known_at > r.raised_at)
  -- Somebody in bed is at rest; a person who lies there too long is another detection's business.
  AND NOT EXISTS (
    SELECT 1 FROM episodes b
    WHERE b.kind = 'in_bed' AND b.home_id = r.home_id
      AND b.start_known_at <= r.raised_at
      AND (b.ended_at IS NULL OR b.ended_at > r.raised_at))
