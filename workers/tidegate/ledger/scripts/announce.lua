#!lua
--[[ announce: put a job into the index before it exists, so that nothing of it can be left behind.
KEYS  1 expiring (zset: job by when to look)  2 jobs (zset: job by creation)  3 active (zset: job by last sweep)
ARGV  1 clock skew  2 job  3 when to look whether it is there, in ms from now
Returns 1
Invariants: a job that is in the index keeps its places. Not allowed when the server is out of memory.
]]
--- @include clock
redis.call('ZADD', KEYS[1], NOW + tonumber(ARGV[3]), ARGV[2])
redis.call('ZADD', KEYS[2], 'NX', NOW, ARGV[2])
redis.call('ZADD', KEYS[3], 'NX', 0, ARGV[2])
return 1
