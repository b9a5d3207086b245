-- Breathing rate out of bounds while in bed, or out of what is usual for this person: see shared/vital_bands.sql.
SELECT 'bed' AS subject_kind, bed_id AS subject_id, home_id, raised_at,
  CASE WHEN over_at <= known_to THEN over_at END AS cleared_at,
  band, since, own_limit, priority
FROM vital_bands
WHERE quantity = 'respiratory_rate'
