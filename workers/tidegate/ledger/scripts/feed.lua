#!lua flags=allow-oom
--[[ feed: the producer says that it lives, however long its source takes for the next item.
KEYS  1 meta
ARGV  1 clock skew
Returns 1 if the job is open, else 0
Invariants: nothing but the time of the producer's last word changes.
]]
--- @include job

if not load_job() or M.state ~= 'open' then return 0 end
put('fed_ms', NOW)
save_job()
return 1
