#!lua flags=allow-oom
-- pause_key: nothing of one key starts under a keyed limit for a while, anywhere in the cluster.
--
-- KEYS[1]  the limit (hash; field "pauses" numbers them)     KEYS[2]  paused (zset: key -> until, server us)
-- KEYS[3]  pause news (zset: key -> number of its last pause)
-- ARGV[1]  key     ARGV[2]  from now on, us; 0 ends a pause     ARGV[3]  time to live, ms, beyond the pause
-- ARGV[4]  ms that an ended pause is remembered, so that everybody hears of it
--
-- Returns  {paused until us, now us}
--
-- Invariants: a shorter pause never ends a longer one; only 0 does. Repeating it moves the end by the time between.
-- Bounded: at most 100 pauses that are over are forgotten by one call.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local length, keep = tonumber(ARGV[2]), tonumber(ARGV[4])
-- A rate begins again without a burst: its pause is remembered for as long as it could bank one.
local banked = tonumber(redis.call('HGET', KEYS[1], 'tolerance') or 0)
local over = string.format('%.0f', now - banked - keep * 1000)
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', over, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[2], key)
  redis.call('ZREM', KEYS[3], key)
end
local until_us = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0)
if length > 0 then
  until_us = math.max(until_us, now + length)
else
  until_us = math.min(until_us, now)
end
redis.call('ZADD', KEYS[2], string.format('%.0f', until_us), ARGV[1])
redis.call('ZADD', KEYS[3], redis.call('HINCRBY', KEYS[1], 'pauses', 1), ARGV[1])
local rest = math.ceil((math.max(until_us - now, 0) + banked) / 1000)
for i = 1, 3 do
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[3]) + rest then redis.call('PEXPIRE', KEYS[i], tonumber(ARGV[3]) + rest) end
end
return {until_us, now}
