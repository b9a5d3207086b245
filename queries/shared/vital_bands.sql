-- Heart and breathing rates out of bounds while in bed: far out for a minute, somewhat for five, or for five out of this person's own usual alone.
-- Medians of a minute; nothing counts in the first three minutes after getting in. Bands: episodes/heart_rate_*.toml and
-- episodes/respiratory_rate_*.toml.
--
-- What is usual is between the limits of baselines/vitals (`own_limit`). It tightens the band of who is usually well within it, never beyond where
-- NEWS2 begins to give points (heart 91, breath 11 and 21 a minute; low heart rates are told from 54 on in any case, NEWS2's 50): what is out
-- of it alone is for the daily list, since whoever lies awake comes there every night. And so is what lies somewhat out of the general band but
-- has been usual for this person for weeks. Far out is as pressing for everybody.
WITH bands AS (
  SELECT v.home_id, v.bed_id, v.kind AS band, v.started_at AS since, least(v.end_known_at, b.end_known_at) AS over_at,
    CASE WHEN v.kind LIKE 'heart_rate_%' THEN 'heart_rate' ELSE 'respiratory_rate' END AS quantity,
    CASE WHEN v.kind LIKE '%_high' OR v.kind LIKE '%_raised' THEN 'high' ELSE 'low' END AS side,
    CASE v.kind WHEN 'heart_rate_high' THEN 95.5 WHEN 'heart_rate_raised' THEN 90.5 WHEN 'heart_rate_low' THEN 54.5
      WHEN 'respiratory_rate_high' THEN 23.5 WHEN 'respiratory_rate_raised' THEN 20.5
      WHEN 'respiratory_rate_low' THEN 9.5 WHEN 'respiratory_rate_lowered' THEN 11.5 END AS edge,
    v.kind LIKE '%_very_%' AS is_far, v.kind LIKE '%_raised' OR v.kind LIKE '%_lowered' AS is_own,
    least($now, h.complete_to) AS known_to,
    greatest(v.start_known_at, b.start_known_at, plus_minutes(b.started_at, 3.0)) AS raised_at
  FROM episodes v
  JOIN homes h ON h.home_id = v.home_id AND h.complete_to IS NOT NULL
  JOIN episodes b ON b.kind = 'in_bed' AND b.home_id = v.home_id AND b.bed_id = v.bed_id
  WHERE v.kind IN ('heart_rate_very_high', 'heart_rate_high', 'heart_rate_low', 'heart_rate_very_low', 'heart_rate_raised',
    'respiratory_rate_very_high', 'respiratory_rate_high', 'respiratory_rate_low', 'respiratory_rate_very_low',
    'respiratory_rate_raised', 'respiratory_rate_lowered')
),
compared AS (
  SELECT b.*, u.value AS own_limit, CASE b.side WHEN 'high' THEN u.value > b.edge ELSE u.value < b.edge END AS is_usual
  FROM bands b
  -- As it was known when it began.
  LEFT JOIN usual u ON NOT b.is_far AND u.baseline = 'vitals' AND u.home_id = b.home_id AND u.bed_id = b.bed_id
    AND u.key = b.quantity || '/' || b.side AND u.known_at <= b.since AND u.known_until > b.since
)
SELECT home_id, bed_id, quantity, band, since, raised_at, known_to, over_at, round(10.0 * own_limit) / 10.0 AS own_limit,
  CASE WHEN is_far THEN 'P1' WHEN is_own OR is_usual THEN 'P4' ELSE 'P2' END AS priority
FROM compared
WHERE raised_at <= known_to AND (over_at IS NULL OR over_at > raised_at)
  AND (NOT is_own OR NOT is_usual)
