-- title.zh: 网关登记沿革：何时服务哪一户
-- title.en: Gateways: which home each served, and from when to when
-- grain: gateway, stretch
SELECT id AS gateway_id, home_id, area, valid_from, valid_to FROM registrations WHERE kind = 'gateway'
