#!lua flags=allow-oom
--[[ forget: take a job out of the index, unless it was opened again meanwhile.
KEYS  1 expiring (zset: job by when to look)  2 jobs (zset: job by creation)  3 active (zset: job by last sweep)
ARGV  1 job  2 the score in `expiring` that was seen before the job was found gone
Returns 1 if it was taken out
]]
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
for i = 1, 3 do redis.call('ZREM', KEYS[i], ARGV[1]) end
return 1
