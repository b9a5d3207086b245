-- title.zh: 每夜小结（供医生参考，不作诊断）
-- title.en: Nights of one bed, for a doctor to look at; no diagnosis
-- grain: bed, night
-- param bed: 床位编号 / the bed's id
SELECT n.night, n.first_in_bed, n.last_out_of_bed, n.minutes_in_bed, n.n_exits, v.heart_rate_mean, v.heart_rate_min,
  v.heart_rate_max, v.respiratory_rate_mean, v.respiratory_rate_min, v.respiratory_rate_max
FROM sleep_nights n
LEFT JOIN nightly_vitals v ON v.bed_id = n.bed_id AND v.night = n.night
WHERE n.bed_id = $bed
ORDER BY n.night
