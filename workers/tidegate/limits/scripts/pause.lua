#!lua flags=allow-oom
-- pause: nothing starts under this limit for a while, anywhere in the cluster.
--
-- KEYS[1]  the limit (hash; made when it was never declared, so that a pause before the first worker counts)
-- ARGV[1]  nonce of the request
-- ARGV[2]  from now on, us; 0 ends a pause
-- ARGV[3]  time to live, ms, beyond the pause
--
-- Returns  {paused until us, now us}
--
-- Invariants: a shorter pause never ends a longer one; only 0 does. Slots of a rate that lie within the pause are not
-- saved up: it begins again without a burst. Repeating the last request changes nothing.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local known = redis.call('HMGET', KEYS[1], 'paused', 'pause_nonce', 'tat', 'tolerance', 'kept')
local paused, tat = tonumber(known[1] or 0), tonumber(known[3] or 0)
local function write(field, value)
  redis.call('HSET', KEYS[1], field, string.format('%.0f', value))
end
if known[2] ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'pause_nonce', ARGV[1])
  if tonumber(ARGV[2]) > 0 then
    if paused <= now then write('kept', tat) end
    paused = math.max(paused, now + tonumber(ARGV[2]))
    tat = math.max(tat, paused)
  elseif paused > now then
    -- Nothing was granted during the pause, so the time kept from before it is still the true one.
    paused, tat = now, math.max(now, tonumber(known[5] or 0))
  end
  write('paused', paused)
  write('tat', tat)
end
local beyond = math.max(tat - now, 0) + tonumber(known[4] or 0)
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[3]) + math.ceil(beyond / 1000))
return {paused, now}
