#!lua flags=no-writes
--[[ progress: one moment of a job.
KEYS  1 meta
ARGV  1 clock skew
Returns {meta as a flat list, ready batches, delayed batches, leased batches, now,
         how long the next ready batch has waited (ms)} | {{}} when there is no such job
]]
--- @include job
--- @include batch

local all = call('HGETALL', META)
if #all == 0 then return { all } end
local first = call('LINDEX', READY, 0)
local waited = first and math.max(0, NOW - unpack_record(first).since) or 0
return { all, call('LLEN', READY), call('ZCARD', DELAYED), call('HLEN', LEASE), NOW, waited }
