#!lua flags=allow-oom
--[[ heartbeat: register or refresh a worker process, forget silent ones, count live slots.
KEYS  1 workers (zset: name by expiry)  2 slots (hash: slots by name, the sum under '')  3 facts (hash: msgpack by name)
ARGV  1 clock skew  2 worker  3 slots; negative: forget this worker  4 ttl ms  5 facts
Returns the live slots of the cluster
Invariants: the sum is that of the registered workers; at most 100 silent ones are forgotten in a call.
]]
local call = redis.call
--- @include clock
local worker, slots, ttl = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local function forget(name)
  local had = tonumber(call('HGET', KEYS[2], name)) or 0
  call('ZREM', KEYS[1], name)
  call('HDEL', KEYS[2], name)
  call('HDEL', KEYS[3], name)
  return had
end

local change = 0
if slots < 0 then
  change = -forget(worker)
else
  change = slots - (tonumber(call('HGET', KEYS[2], worker)) or 0)
  call('ZADD', KEYS[1], NOW + ttl, worker)
  call('HSET', KEYS[2], worker, slots)
  call('HSET', KEYS[3], worker, ARGV[5])
end
local silent = call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('(%d', NOW), 'LIMIT', 0, 100)
for i = 1, #silent do change = change - forget(silent[i]) end
if call('ZCARD', KEYS[1]) == 0 then
  call('DEL', KEYS[2])
  return 0
end
local live = call('HINCRBY', KEYS[2], '', change)
if slots >= 0 then
  for i = 1, 3 do call('PEXPIRE', KEYS[i], math.max(ttl * 10, 60000)) end
end
return live
