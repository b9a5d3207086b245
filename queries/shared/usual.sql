-- What is usual, with how long it was the newest that was known: up to the next midnight that says it anew, and for two days at most. What
-- began at an instant is compared with the row that was the newest then: `known_at <= instant AND known_until > instant`.
SELECT baseline, home_id, bed_id, "key", slot, value, n_days, known_at,
  least(plus_minutes(known_at, 2880.0),
    lead(known_at) OVER (PARTITION BY baseline, home_id, bed_id, "key", slot ORDER BY known_at)) AS known_until
FROM baselines
