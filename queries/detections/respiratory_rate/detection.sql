-- Breathing rate out of bounds while in bed: far out for a minute (most pressing) or somewhat for five. Medians of a minute; nothing counts in the
-- first three minutes after getting in. Bands: see episodes/respiratory_rate_*.toml.
WITH limits AS (
  SELECT h.home_id, least($now, h.complete_to) AS known_to
  FROM homes h
  WHERE h.complete_to IS NOT NULL
),
bands AS (
  SELECT v.home_id, v.bed_id, v.kind, v.started_at, v.end_known_at AS band_end, b.end_known_at AS bed_end, l.known_to,
    greatest(v.start_known_at, b.start_known_at, plus_minutes(b.started_at, 3.0)) AS raised_at
  FROM episodes v
  JOIN limits l ON l.home_id = v.home_id
  JOIN episodes b ON b.kind = 'in_bed' AND b.home_id = v.home_id AND b.bed_id = v.bed_id
  WHERE v.kind IN ('respiratory_rate_very_high', 'respiratory_rate_high', 'respiratory_rate_low', 'respiratory_rate_very_low')
),
overs AS (
  SELECT *, least(band_end, bed_end) AS over_at FROM bands
)
SELECT 'bed' AS subject_kind, o.bed_id AS subject_id, o.home_id, o.raised_at,
  CASE WHEN o.over_at <= o.known_to THEN o.over_at END AS cleared_at,
  o.kind AS band, o.started_at AS since,
  CASE WHEN o.kind LIKE '%very%' THEN 'P1' ELSE 'P2' END AS priority
FROM overs o
WHERE o.raised_at <= o.known_to
  AND (o.over_at IS NULL OR o.over_at > o.raised_at)
