#!lua flags=no-writes
--[[ progress: one moment of a job.
KEYS  1 meta
ARGV  1 clock skew
Returns {meta as a flat list, ready batches, delayed batches, leased batches, now} | {{}} when there is no such job
]]
--- @include job

local all = call('HGETALL', META)
if #all == 0 then return { all } end
return { all, call('LLEN', READY), call('ZCARD', DELAYED), call('HLEN', LEASE), NOW }
