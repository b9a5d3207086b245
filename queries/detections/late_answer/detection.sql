-- An alert of the first priority about a person that nobody has acknowledged three minutes after it rang (calls beyond 180 seconds are
-- investigated by the standard of the British TSA), and one whose responder has not arrived 30 minutes after being sent (Quanzhou's call centre).
-- Own numbers of a home: answer_minutes, arrive_minutes (45 or 60 where the way is long).
WITH limits AS (
  SELECT h.home_id,
    greatest(coalesce(max(CASE WHEN p.key = 'answer_minutes' THEN p.value END), 3.0), 1.0) AS answer_minutes,
    greatest(coalesce(max(CASE WHEN p.key = 'arrive_minutes' THEN p.value END), 30.0), 5.0) AS arrive_minutes
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'late_answer'
  GROUP BY h.home_id
),
duties AS (
  SELECT t.home_id, 'unanswered' AS duty, t.rang_at AS since, l.answer_minutes AS minutes,
    least(t.acknowledged_at, t.resolved_at) AS done_at
  FROM alert_times t
  JOIN limits l ON l.home_id = t.home_id
  WHERE t.class = 'care' AND t.priority = 'P1' AND t.rang_at IS NOT NULL
  UNION ALL
  SELECT t.home_id, 'not_arrived', t.dispatched_at, l.arrive_minutes, least(t.arrived_at, t.resolved_at)
  FROM alert_times t
  JOIN limits l ON l.home_id = t.home_id
  WHERE t.class = 'care' AND t.dispatched_at IS NOT NULL
),
dues AS (
  SELECT *, plus_minutes(since, minutes) AS raised_at FROM duties
)
SELECT 'home' AS subject_kind, home_id AS subject_id, home_id, raised_at,
  CASE WHEN done_at <= $now THEN done_at END AS cleared_at, duty, since, minutes
FROM dues
WHERE raised_at <= $now AND (done_at IS NULL OR done_at > raised_at)
