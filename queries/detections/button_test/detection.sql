-- A call button that nobody has pressed for longer than agreed (key 'every_days': 7 for a weekly test, as JGJ/T 484 asks of homes). Any press
-- that reached the centre shows that it works, tests included. Homes without that number are not asked about, nor is one without any press yet.
WITH presses AS (
  SELECT t.home_id, t.raised_at AS pressed_at, coalesce(t.rang_at, t.raised_at) AS known_at, p.value AS days
  FROM alert_times t
  JOIN params p ON p.home_id = t.home_id AND p.detection = 'button_test' AND p.key = 'every_days' AND p.value >= 1.0
  WHERE t.detection = 'call_for_help' AND coalesce(t.rang_at, t.raised_at) <= $now
),
dues AS (
  SELECT home_id, pressed_at, days, plus_minutes(pressed_at, days * 1440.0) AS raised_at,
    lead(known_at) OVER (PARTITION BY home_id ORDER BY pressed_at, known_at) AS done_at
  FROM presses
)
SELECT 'home' AS subject_kind, home_id AS subject_id, home_id, raised_at, done_at AS cleared_at,
  pressed_at AS last_press_at, days
FROM dues
WHERE raised_at <= $now AND (done_at IS NULL OR done_at > raised_at)
