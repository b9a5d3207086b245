-- No activity at home for 12 hours (Shanghai's programme for people living alone uses 12; others 8 to 24).
-- Own number of a home: hours, from 1 to 48. Of several people in a home one may well lie still while another is out: one step less pressing.
-- Raised at the first instant at which the quiet has lasted so long and the home is not inferred to be empty: an inferred absence
-- expires, and a quiet that outlasts it counts again.
WITH limits AS (
  SELECT h.home_id, h.residents, least($now, h.complete_to) AS known_to,
    least(greatest(coalesce(max(CASE WHEN p.key = 'hours' THEN p.value END), 12.0), 1.0), 48.0) AS hours
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'inactivity_cap'
  WHERE h.complete_to IS NOT NULL
  GROUP BY h.home_id, h.residents, h.complete_to
),
crossings AS (
  SELECT q.home_id, q.started_at, q.end_known_at, l.known_to, l.hours, l.residents,
    greatest(plus_minutes(q.started_at, l.hours * 60.0), q.start_known_at) AS crosses_at
  FROM watched_quiets q
  JOIN limits l ON l.home_id = q.home_id
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
  r.started_at AS last_activity_at, r.hours, CASE WHEN r.residents > 1 THEN 'P2' ELSE 'P1' END AS priority
FROM raised r
WHERE r.raised_at <= r.known_to
  AND (r.end_known_at IS NULL OR r.end_known_at > r.raised_at)
  -- Somebody in bed is at rest; a person who lies there too long is another detection's business.
  AND NOT EXISTS (
    SELECT 1 FROM episodes b
    WHERE b.kind = 'in_bed' AND b.home_id = r.home_id
      AND b.start_known_at <= r.raised_at
      AND (b.ended_at IS NULL OR b.ended_at > r.raised_at))
