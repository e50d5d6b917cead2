#!lua flags=allow-oom
--[[ remains: remove what is left of a job that is gone.
KEYS  1 meta
ARGV  1 clock skew
Returns -1 if the job is gone (and so is the rest of it now), else how long it has to live in ms
Invariants: a job that exists is not touched.
]]
--- @include job

local ttl = call('PTTL', META)
if ttl ~= -2 then return ttl == -1 and IDLE_MS or ttl end
call('UNLINK', unpack(every_key()))
return -1
