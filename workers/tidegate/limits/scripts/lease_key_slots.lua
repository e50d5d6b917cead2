#!lua flags=allow-oom
-- lease_key_slots: take the next slots of several keys of a keyed rate limit. The rules of one key are those of lease_slots.
--
-- KEYS[1]  the limit (hash)     KEYS[2]  paused (zset: key -> until, server us)
-- KEYS[3]  pause news (zset: key -> number of the pause)
-- KEYS[4…] one string per key: its theoretical arrival time, server us; gone when it says nothing any more
-- ARGV[1]  horizon, us     ARGV[2]  time to live of the limit, ms     ARGV[3]  number of the last pause that the caller knows
-- ARGV[4…] for each key: its name, slots wanted, slots that may lie in the future
--
-- Returns  {now us, limit paused until us, version, interval ns, tolerance us, last pause told,
--           {paused key, until us, …}, {granted, start us, come back in us, …}}
--          {-1} when the limit was never declared, {-2} when it is of another kind
--
-- Invariants: as in lease_slots, for each key by itself: slot times never repeat and lie at least one interval apart. A
-- repeated request takes further slots, which then pass unused. A forgotten key was idle for longer than the tolerance.
-- Bounded: the caller sends at most 128 keys; at most 100 pauses are told.
local definition = redis.call('HMGET', KEYS[1], 'kind', 'value', 'tolerance', 'paused', 'version')
if not definition[1] then return {-1} end
if definition[1] ~= 'keyed rate' then return {-2} end
local interval, tolerance = tonumber(definition[2]), tonumber(definition[3])
local paused, version = tonumber(definition[4] or 0), tonumber(definition[5])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local horizon = tonumber(ARGV[1])
local leave = math.min(math.floor(tolerance / 2), math.max(20000, math.floor(interval / 1000)))

local function serve(key, name, want, ahead)
  local stop = math.max(paused, tonumber(redis.call('ZSCORE', KEYS[2], name) or 0))
  local tat = math.max(tonumber(redis.call('GET', key) or 0), stop)
  local start = math.max(tat, now - tolerance + leave)
  if stop > now then return 0, start, stop - now end
  if start - now > horizon then return 0, start, start - now - horizon end
  local banked = start <= now and math.floor((now - start) * 1000 / interval) + 1 or 0
  local near = math.floor((now + horizon - start) * 1000 / interval) + 1
  local granted = math.min(want, banked + ahead, near)
  if granted > 0 then
    tat = start + math.ceil(granted * interval / 1000)
    redis.call('SET', key, string.format('%.0f', tat), 'PX', math.ceil((math.max(tat - now, 0) + tolerance) / 1000) + 1000)
  end
  return granted, start, 0
end

local answers = {}
for i = 4, #KEYS do
  local at = 4 + (i - 4) * 3
  local granted, start, wait = serve(KEYS[i], ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]))
  answers[#answers + 1] = granted
  answers[#answers + 1] = start
  answers[#answers + 1] = wait
end
local told, pauses = tonumber(ARGV[3]), {}
local news = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[3], '+inf', 'WITHSCORES', 'LIMIT', 0, 100)
for i = 1, #news, 2 do
  pauses[#pauses + 1] = news[i]
  pauses[#pauses + 1] = tonumber(redis.call('ZSCORE', KEYS[2], news[i]) or 0)
  told = tonumber(news[i + 1])
end
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) + math.ceil((math.max(paused - now, 0) + tolerance) / 1000))
return {now, paused, version, interval, tolerance, told, pauses, answers}
