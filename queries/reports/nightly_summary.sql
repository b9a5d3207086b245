-- title.zh: 每夜小结（供医生参考，不作诊断）
-- title.en: Nights of one bed, for a doctor to look at; no diagnosis
-- grain: bed, night
-- param bed: 床位编号 / the bed's id
SELECT coalesce(n.night, v.night) AS night, n.first_in_bed, n.last_out_of_bed, n.minutes_in_bed, n.n_exits, v.heart_rate_mean, v.heart_rate_min,
  v.heart_rate_max, v.respiratory_rate_mean, v.respiratory_rate_min, v.respiratory_rate_max
FROM (SELECT * FROM sleep_nights WHERE bed_id = $bed) n
FULL JOIN (SELECT * FROM nightly_vitals WHERE bed_id = $bed) v ON v.home_id = n.home_id AND v.night = n.night
ORDER BY 1
