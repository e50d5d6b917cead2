#!lua flags=allow-oom
-- hold_permits: set how many permits of a concurrency limit one holder has; renews its lease.
--
-- KEYS[1]  the limit (hash; field "total" is the sum of all permits held)
-- KEYS[2]  holders (zset: holder -> end of its lease, server ms)
-- KEYS[3]  permits (hash: holder -> permits held; "s:"holder -> last sequence number; "t:"holder -> ms of its first permit)
-- KEYS[4]  waiting (zset: holder that has less than its share -> since when, server ms)
-- ARGV[1]  holder     ARGV[2]  sequence number, growing by request
-- ARGV[3]  permits wanted     ARGV[4]  permits in use now: these cannot be taken back
-- ARGV[5]  lease, ms     ARGV[6]  turn, ms: how long a holder keeps a permit while others have none
-- ARGV[7]  time to live of the keys, ms
--
-- Returns  {allowed, recorded, paused until us, now us, others waiting, version, limit, fresh}
--          {-1} when the limit was never declared, {-2} when it is of another kind. A sequence number that is not new
--          changes nothing (fresh = 0).
--
-- Invariants: total = sum of permits over holders. A call never raises total above the limit, unless what is in use
-- already does (a lowered limit, a lost server): then nobody is allowed more until use has fallen. A holder whose lease
-- is over holds nothing. allowed <= recorded: the difference runs out and is given back by a later call.
-- Bounded: at most 100 dead holders are removed by one call.
local definition = redis.call('HMGET', KEYS[1], 'kind', 'value', 'paused', 'version', 'total')
if not definition[1] then return {-1} end
if definition[1] ~= 'concurrency' then return {-2} end
local limit, paused = tonumber(definition[2]), tonumber(definition[3] or 0)
local version, total = tonumber(definition[4]), tonumber(definition[5] or 0)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local holder, sequence = ARGV[1], tonumber(ARGV[2])
local want, in_use, turn = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6])

local function forget(name)
  total = total - tonumber(redis.call('HGET', KEYS[3], name) or 0)
  redis.call('HDEL', KEYS[3], name, 's:' .. name, 't:' .. name)
  redis.call('ZREM', KEYS[2], name)
  redis.call('ZREM', KEYS[4], name)
end

local have = tonumber(redis.call('HGET', KEYS[3], holder) or 0)
local last = tonumber(redis.call('HGET', KEYS[3], 's:' .. holder) or -1)
if sequence <= last then
  return {math.min(have, want), have, paused, now_us, 0, version, limit, 0}
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
  forget(name)
  if name == holder then have = 0 end
end

-- Every holder that wants something is a claimant. While one of them has less than its share, nobody keeps more.
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[5]), holder)
local claimants = redis.call('ZCARD', KEYS[2])
local share = math.max(1, math.floor(limit / claimants))
local rank = redis.call('ZRANK', KEYS[4], holder)
local others = redis.call('ZCARD', KEYS[4]) - (rank and 1 or 0)
local free = limit - (total - have)
local allowed = math.max(0, math.min(want, free))
if others > 0 then
  allowed = math.min(allowed, share)
  if limit < claimants then
    -- Not one each: permits go round. Who has one gives it up after its turn, to who has waited longest.
    local since = tonumber(redis.call('HGET', KEYS[3], 't:' .. holder) or now)
    if have > 0 and now - since >= turn then allowed = 0 end
    if have == 0 and (rank or others) >= free then allowed = 0 end
  end
end
local recorded = math.max(allowed, in_use)
if want == 0 and recorded == 0 then
  forget(holder)
else
  total = total - have + recorded
  redis.call('HSET', KEYS[3], holder, recorded, 's:' .. holder, sequence)
  if have == 0 and recorded > 0 then redis.call('HSET', KEYS[3], 't:' .. holder, now) end
  if recorded == 0 then redis.call('HDEL', KEYS[3], 't:' .. holder) end
  -- A holder that has just been told to give way does not count as waiting before its next call.
  if allowed < math.min(want, share) and have <= allowed then
    redis.call('ZADD', KEYS[4], 'NX', now, holder)
  else
    redis.call('ZREM', KEYS[4], holder)
  end
  -- Who only waits has nothing to protect: when it dies, the others need not wait for a whole lease.
  if recorded == 0 then redis.call('ZADD', KEYS[2], now + math.min(tonumber(ARGV[5]), 1000), holder) end
  for _, key in ipairs({KEYS[2], KEYS[3], KEYS[4]}) do redis.call('PEXPIRE', key, ARGV[7]) end
end
redis.call('HSET', KEYS[1], 'total', total)
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[7]) + math.ceil(math.max(paused - now_us, 0) / 1000))
return {allowed, recorded, paused, now_us, others, version, limit, 1}
