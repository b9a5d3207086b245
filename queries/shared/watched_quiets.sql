-- Quiets of homes in which somebody who is up is seen at all: in the day before the quiet began, something else than a bed was the last that
-- moved, once at least. Where there is nothing but a bed sensor, every day out of bed would be a silence.
WITH seen AS (
  SELECT q.home_id, q.started_at
  FROM episodes q
  WHERE q.kind = 'quiet' AND NOT EXISTS (
    SELECT 1 FROM episodes b
    WHERE b.kind IN ('in_bed', 'out_of_bed') AND b.home_id = q.home_id AND b.device_id = q.device_id AND b.started_at <= q.started_at)
)
SELECT q.home_id, q.room, q.device_id, q.started_at, q.start_known_at, q.end_known_at
FROM episodes q
WHERE q.kind = 'quiet' AND EXISTS (
  SELECT 1 FROM seen s
  WHERE s.home_id = q.home_id AND s.started_at <= q.started_at AND s.started_at > plus_minutes(q.started_at, -1440.0))
