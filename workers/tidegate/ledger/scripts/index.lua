#!lua flags=allow-oom
--[[ index: keep the index of jobs true.
KEYS  1 expiring (zset: job by when to look)  2 jobs (zset: job by creation)  3 active (zset: job by last sweep)
ARGV  1 clock skew  2 job  3 'opened' | 'swept' | 'inactive' | 'ended' | 'look'  4 when to look again, in ms from now
Returns 1
Invariants: adds nothing that was not announced, but for `opened`: that job is active.
]]
--- @include clock
local job, what = ARGV[2], ARGV[3]
if what == 'opened' then redis.call('ZADD', KEYS[3], 'NX', 0, job) end
if what == 'swept' then redis.call('ZADD', KEYS[3], 'XX', NOW, job) end
if what == 'inactive' or what == 'ended' then redis.call('ZREM', KEYS[3], job) end
if what == 'look' or what == 'ended' then redis.call('ZADD', KEYS[1], 'XX', NOW + tonumber(ARGV[4]), job) end
return 1
