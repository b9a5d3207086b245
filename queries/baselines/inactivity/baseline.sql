-- How many minutes of quiet are too many, by the room in which it began (`key`; null stands for any) and the half hour of the local
-- day (`slot`, 0 to 47).
--
-- An alert too early disturbs somebody for nothing; one too late leaves somebody lying. Of the limits between two and twelve hours, the
-- one is taken for which the two together cost least:
--
--     hours at home in such quiets × the limit  +  price × how many of them would outlast the limit
--
-- `price` says how many hours of delay one false alert is worth; it is the only knob (own number of a home: false_alert_hours). Where a
-- home's quiets vary much, as at night, the limit goes where waiting longer buys little; where they are short, down to the floor. What was
-- usual is learnt from the last 60 days: a quiet counts for half hours up to 150 minutes away from its own, the less the farther. Of a room
-- in which the person was hardly ever seen at that hour little is known: what is known of all rooms counts there like five hours in it.
--
-- Asked for (`asked`): which half hours, and as known at which local midnight.
WITH homes_learnt AS (
  SELECT h.home_id, h.time_zone,
    greatest(coalesce(max(CASE WHEN p.key = 'false_alert_hours' THEN p.value END), 115.0), 1.0) AS price
  FROM homes h
  LEFT JOIN params p ON p.home_id = h.home_id AND p.detection = 'inactivity'
  -- With several people in the home the quiet of one is hidden by the others.
  WHERE h.residents <= 1
  GROUP BY h.home_id, h.time_zone
),
-- Everything between one activity and the next with the person at home, by its beginning. What lasted a day and more was no rest.
pauses AS (
  SELECT e.home_id, coalesce(e.room, e.device_id, '') AS room, e.started_at, e.ended_at,
    minutes_between(e.started_at, e.ended_at) AS minutes,
    CAST(floor((date_part('hour', local_time(e.started_at, h.time_zone)) * 60.0
      + date_part('minute', local_time(e.started_at, h.time_zone))) / 30.0) AS BIGINT) AS slot,
    date_trunc('day', local_time(e.end_known_at, h.time_zone)) AS day
  FROM episodes e
  JOIN homes_learnt h ON h.home_id = e.home_id
  WHERE e.kind = 'pause' AND e.ended_at IS NOT NULL
    AND minutes_between(e.started_at, e.ended_at) <= 1440.0
    AND NOT EXISTS (
      SELECT 1 FROM episodes a
      WHERE a.kind IN ('away', 'unobserved') AND a.home_id = e.home_id
        AND a.started_at < e.ended_at AND coalesce(a.ended_at, e.ended_at) > e.started_at)
),
-- Absences, visits and the like teach nothing about quiet days, as soon as somebody has entered them.
said AS (
  SELECT p.home_id, p.started_at, min(i.entered_at) AS said_at
  FROM pauses p
  JOIN intervals i ON i.home_id = p.home_id AND i.started_at < p.ended_at AND i.ended_at > p.started_at
  GROUP BY p.home_id, p.started_at
),
usual AS (
  SELECT p.*, s.said_at
  FROM pauses p
  LEFT JOIN said s ON s.home_id = p.home_id AND s.started_at = p.started_at
),
nights AS (
  SELECT DISTINCT a.home_id, a.known_at, h.price,
    date_trunc('day', local_time(a.known_at, h.time_zone)) AS before,
    date_trunc('day', local_time(plus_minutes(a.known_at, -86400.0), h.time_zone)) AS since
  FROM asked a
  JOIN homes_learnt h ON h.home_id = a.home_id
),
-- How long the person was at home in pauses that began there and then: what lasted longer than three hours counts as three.
days AS (
  SELECT home_id, room, slot, day, said_at, sum(least(minutes, 180.0)) / 60.0 AS hours
  FROM usual
  GROUP BY home_id, room, slot, day, said_at
),
clean AS (
  SELECT n.home_id, n.known_at, n.price, n.since, n.before, count(DISTINCT d.day) AS n_days
  FROM nights n
  JOIN (SELECT DISTINCT home_id, day, said_at FROM days) d
    ON d.home_id = n.home_id AND d.day >= n.since AND d.day < n.before
      AND (d.said_at IS NULL OR d.said_at > n.known_at)
  GROUP BY n.home_id, n.known_at, n.price, n.since, n.before
  HAVING count(DISTINCT d.day) >= 7
),
-- From which half hours each one learns, around the clock.
reach AS (
  SELECT c.home_id, c.known_at, c.since, c.before, a.slot, (a.slot + near.later + 48) % 48 AS from_slot,
    near.later * 30.0 AS minutes_later, 1.0 - abs(near.later) * 30.0 / 150.0 AS share,
    6.0 * power(c.n_days / 30.0, 0.3) AS sharpness
  FROM clean c
  JOIN asked a ON a.home_id = c.home_id AND a.known_at = c.known_at AND a.slot IS NOT NULL
  CROSS JOIN unnest(range(-4, 5)) AS near(later)
),
spent AS (
  SELECT r.home_id, r.known_at, r.slot, d.room, sum(d.hours * r.share) AS hours
  FROM reach r
  JOIN days d ON d.home_id = r.home_id AND d.slot = r.from_slot AND d.day >= r.since AND d.day < r.before
    AND (d.said_at IS NULL OR d.said_at > r.known_at)
  GROUP BY r.home_id, r.known_at, r.slot, d.room
),
-- 21 limits from 120 to 720 minutes, each 9 percent above the one before.
limits AS (
  SELECT round(120.0 * power(6.0, step / 20.0)) AS minutes FROM unnest(range(0, 21)) AS t(step)
),
-- How many quiets would outlast each limit. One that lasted 2 h might as well have lasted longer or shorter: it counts as half an
-- alert at a limit of 2 h, as a twelfth at 3 h; the more days are known, the sharper. One that began later ends, by a quarter of that, later.
outlasting AS (
  SELECT r.home_id, r.known_at, r.slot, p.room, limits.minutes,
    sum(r.share / (1.0 + power(limits.minutes / greatest(p.minutes + 0.25 * r.minutes_later, 30.0), r.sharpness))) AS alerts
  FROM reach r
  JOIN usual p ON p.home_id = r.home_id AND p.slot = r.from_slot AND p.day >= r.since AND p.day < r.before
    AND p.minutes >= 60.0 AND (p.said_at IS NULL OR p.said_at > r.known_at)
  CROSS JOIN limits
  GROUP BY r.home_id, r.known_at, r.slot, p.room, limits.minutes
),
all_spent AS (
  SELECT home_id, known_at, slot, sum(hours) AS hours FROM spent GROUP BY home_id, known_at, slot
),
all_outlasting AS (
  SELECT home_id, known_at, slot, minutes, sum(alerts) AS alerts FROM outlasting GROUP BY home_id, known_at, slot, minutes
),
-- Rooms and, for rooms not seen at that hour, all of them together.
places AS (
  SELECT s.home_id, s.known_at, s.room AS key, s.slot, s.hours, s.hours / (s.hours + 5.0) AS of_own,
    5.0 / (s.hours + 5.0) * s.hours / greatest(a.hours, 0.001) AS of_all
  FROM spent s
  JOIN all_spent a ON a.home_id = s.home_id AND a.known_at = s.known_at AND a.slot = s.slot
  UNION ALL
  SELECT home_id, known_at, NULL, slot, hours, 0.0, 1.0 FROM all_spent
),
costs AS (
  SELECT p.home_id, p.known_at, p.key, p.slot, c.n_days, limits.minutes,
    -- Of a place nobody is in the limit would not matter; a minute a day keeps it at the floor.
    (p.hours + c.n_days / 60.0) * limits.minutes / 60.0
      + c.price * (1.0 + 10.0 / c.n_days)
        * (p.of_own * coalesce(o.alerts, 0.0) + p.of_all * coalesce(a.alerts, 0.0)) AS cost
  FROM places p
  JOIN clean c ON c.home_id = p.home_id AND c.known_at = p.known_at
  CROSS JOIN limits
  LEFT JOIN outlasting o ON o.home_id = p.home_id AND o.known_at = p.known_at AND o.room = p.key
    AND o.slot = p.slot AND o.minutes = limits.minutes
  LEFT JOIN all_outlasting a ON a.home_id = p.home_id AND a.known_at = p.known_at
    AND a.slot = p.slot AND a.minutes = limits.minutes
)
SELECT home_id, CAST(NULL AS VARCHAR) AS bed_id, key, slot, known_at,
  first_value(minutes ORDER BY cost, minutes) AS value, max(n_days) AS n_days
FROM costs
GROUP BY home_id, key, slot, known_at
