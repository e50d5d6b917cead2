-- NOW: the server's clock in milliseconds. ARGV[1] of every script that reads it is added to it; a number as large as a date
-- replaces it. Outside tests it is 0.
local TIME = redis.call('TIME')
local SKEW = tonumber(ARGV[1])
local NOW = SKEW > 1e12 and SKEW or TIME[1] * 1000 + math.floor(TIME[2] / 1000) + SKEW
