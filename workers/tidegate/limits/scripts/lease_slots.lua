#!lua flags=allow-oom
-- lease_slots: take the next slots of a rate limit.
--
-- KEYS[1]  the limit (hash)
-- KEYS[2]  the holder's last answer (string)
-- ARGV[1]  nonce of the request
-- ARGV[2]  slots wanted (0: only look)
-- ARGV[3]  slots that may lie in the future
-- ARGV[4]  horizon, us: no slot is granted that is further away than this
-- ARGV[5]  time to live of the limit, ms     ARGV[6]  time to live of the answer, ms
--
-- Returns  {granted, start us, interval ns, tolerance us, now us, paused until us, come back in us, version}
--          {-1} when the limit was never declared, or its declaration is lost; {-2} when it is of another kind
--
-- Invariants: slot times never repeat and lie at least one interval apart: tat (the theoretical arrival time of the next
-- slot) only grows, by at least granted * interval. No slot lies further in the past than the tolerance. The same nonce
-- gets the same slots. Bounded: no loop.
local definition = redis.call('HMGET', KEYS[1], 'kind', 'value', 'tolerance', 'tat', 'paused', 'version')
if not definition[1] then return {-1} end
if definition[1] ~= 'rate' then return {-2} end
local interval, tolerance = tonumber(definition[2]), tonumber(definition[3])
local tat, paused, version = tonumber(definition[4] or 0), tonumber(definition[5] or 0), tonumber(definition[6])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local last = redis.call('GET', KEYS[2])
if last then
  local answer = cmsgpack.unpack(last)
  if answer[1] == ARGV[1] then
    return {answer[2], answer[3], answer[4], answer[5], now, paused, 0, version}
  end
end

-- A slot that is granted with its tolerance nearly over could not be used any more: leave half of it, at most 20 ms or one
-- interval (of a burst that costs no more slots than a microsecond would).
local leave = math.min(math.floor(tolerance / 2), math.max(20000, math.floor(interval / 1000)))
local start = math.max(tat, now - tolerance + leave)
local horizon = tonumber(ARGV[4])
local granted, wait = 0, 0
if paused > now then
  wait = paused - now
elseif start - now > horizon then
  wait = start - now - horizon
else
  local banked = start <= now and math.floor((now - start) * 1000 / interval) + 1 or 0
  local near = math.floor((now + horizon - start) * 1000 / interval) + 1
  granted = math.min(tonumber(ARGV[2]), banked + tonumber(ARGV[3]), near)
end
if granted > 0 then
  tat = start + math.ceil(granted * interval / 1000)
  redis.call('HSET', KEYS[1], 'tat', string.format('%.0f', tat))
  redis.call('SET', KEYS[2], cmsgpack.pack({ARGV[1], granted, start, interval, tolerance}), 'PX', ARGV[6])
end
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[5]) + math.ceil((math.max(tat - now, paused - now, 0) + tolerance) / 1000))
return {granted, start, interval, tolerance, now, paused, wait, version}
