#!lua flags=allow-oom
-- hold_keys: set how many permits one holder has of several keys of a keyed concurrency limit; renews its lease on all.
--
-- KEYS[1]  the limit (hash)                     KEYS[2]  holders (zset: holder -> end of its lease, server ms)
-- KEYS[3]  sequences (hash: holder -> last sequence number)
-- KEYS[4]  wanted (zset: key -> until when somebody with less than its share waits for it, server ms)
-- KEYS[5]  paused (zset: key -> until, server us)   KEYS[6]  pause news (zset: key -> number of the pause)
-- KEYS[7…] one hash per key: holder -> "permits, since when it has any, since when it waits, last seen" (server ms)
-- ARGV[1]  holder     ARGV[2]  sequence number, growing by request     ARGV[3]  lease, ms
-- ARGV[4]  turn, ms: how long a holder keeps a permit while others have none     ARGV[5]  ms that a waiting holder counts
-- ARGV[6]  time to live of the limit, ms     ARGV[7]  time to live of a key, ms: holders ask again for what they hold before
-- ARGV[8]  number of the last pause that the holder knows     ARGV[9]  where it is in the list of wanted keys
-- ARGV[10…] for each key: its name, permits wanted, permits in use now (these cannot be taken back)
--
-- Returns  {now us, limit paused until us, version, permits per key, fresh, last pause told, next place in the wanted list,
--           {paused key, until us, …}, {wanted key, …}, {allowed, recorded, …}}
--          {-1} when the limit was never declared, {-2} when it is of another kind. A sequence number that is not new
--          changes nothing (fresh = 0).
--
-- Invariants: of each key, the permits of holders whose lease runs never sum to more than the limit, unless what is in use
-- already does (a lowered limit, a lost server): then nobody is allowed more until use has fallen. A holder whose lease
-- ended never renews it: it comes back under another name. allowed <= recorded: the difference runs out and is given back
-- by a later call. A key that nobody holds or waits for is gone.
-- Bounded: the caller sends at most 128 keys; holders are processes; at most 100 dead ones are removed by one call, at
-- most 100 pauses and 256 wanted keys are told.
local definition = redis.call('HMGET', KEYS[1], 'kind', 'value', 'paused', 'version')
if not definition[1] then return {-1} end
if definition[1] ~= 'keyed concurrency' then return {-2} end
local limit, paused, version = tonumber(definition[2]), tonumber(definition[3] or 0), tonumber(definition[4])
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local holder, lease, turn, counts = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if tonumber(ARGV[2]) <= tonumber(redis.call('HGET', KEYS[3], holder) or -1) then
  return {now_us, paused, version, limit, 0, tonumber(ARGV[8]), 0, {}, {}, {}}
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[2], name)
  redis.call('HDEL', KEYS[3], name)
end
redis.call('HSET', KEYS[3], holder, ARGV[2])
redis.call('ZADD', KEYS[2], now + lease, holder)
local alive = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], now + 1, '+inf')) do alive[name] = true end

local function integers(text)
  local a, b, c, d = string.match(text, '^(%d+) (%d+) (%d+) (%d+)$')
  return tonumber(a), tonumber(b), tonumber(c), tonumber(d)
end

local function serve(key, name, want, in_use)
  local have, since, waits, taken, claimants, others, ahead = 0, now, 0, 0, 1, {}, 0
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local permits, began, waiting, seen = integers(fields[i + 1])
    if fields[i] == holder then
      have, since, waits = permits, began, waiting
    elseif not alive[fields[i]] then
      redis.call('HDEL', key, fields[i])
    else
      local hopes = waiting > 0 and now - seen <= counts
      taken = taken + permits
      if hopes then table.insert(others, waiting) end
      if hopes or permits > 0 then claimants = claimants + 1 end
    end
  end
  for _, waiting in ipairs(others) do
    if waits == 0 or waiting < waits then ahead = ahead + 1 end
  end
  local share, free = math.max(1, math.floor(limit / claimants)), limit - taken
  local allowed = math.max(0, math.min(want, free))
  if #others > 0 then
    allowed = math.min(allowed, share)
    if limit < claimants then
      -- Not one each: permits go round. Who has one gives it up after its turn, to who has waited longest.
      if have > 0 and now - since >= turn then allowed = 0 end
      if have == 0 and ahead >= free then allowed = 0 end
    end
  end
  local recorded = math.max(allowed, in_use)
  if want == 0 and recorded == 0 then
    redis.call('HDEL', key, holder)
    return allowed, recorded
  end
  if recorded == 0 then since = 0 elseif have == 0 then since = now end
  if allowed < math.min(want, share) and have <= allowed then
    waits = waits > 0 and waits or now
    redis.call('ZADD', KEYS[4], now + counts, name)
  else
    waits = 0
  end
  redis.call('HSET', key, holder, string.format('%.0f %.0f %.0f %.0f', recorded, since, waits, now))
  redis.call('PEXPIRE', key, ARGV[7])
  return allowed, recorded
end

local answers = {}
for i = 7, #KEYS do
  local at = 10 + (i - 7) * 3
  local allowed, recorded = serve(KEYS[i], ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]))
  answers[#answers + 1] = allowed
  answers[#answers + 1] = recorded
end

redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
local place = tonumber(ARGV[9])
local wanted = redis.call('ZRANGE', KEYS[4], place, place + 255)
local next_place = #wanted == 256 and place + 256 or 0
local told, pauses = tonumber(ARGV[8]), {}
local news = redis.call('ZRANGEBYSCORE', KEYS[6], '(' .. ARGV[8], '+inf', 'WITHSCORES', 'LIMIT', 0, 100)
for i = 1, #news, 2 do
  pauses[#pauses + 1] = news[i]
  pauses[#pauses + 1] = tonumber(redis.call('ZSCORE', KEYS[5], news[i]) or 0)
  told = tonumber(news[i + 1])
end
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[6]) end
redis.call('PEXPIRE', KEYS[4], ARGV[5])
if paused > now_us then redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[6]) + math.ceil((paused - now_us) / 1000)) end
return {now_us, paused, version, limit, 1, told, next_place, pauses, wanted, answers}
