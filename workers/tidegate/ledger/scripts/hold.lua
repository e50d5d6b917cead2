#!lua flags=allow-oom
--[[ hold: stop handing out batches: pause (by an operator) or park (by a worker that cannot run the job).
KEYS  1 meta
ARGV  1 clock skew  2 'paused' | 'parked'  3 reason
Returns {'OK'} | {'GONE'}
Invariants: leases that are out go on; an ended job stays as it is; repeated, it changes nothing.
]]
--- @include job

if not load_job() then return { 'GONE' } end
if ended() or M[ARGV[2]] == '1' then return { 'OK' } end
put(ARGV[2], '1')
if ARGV[3] ~= '' then put('reason', ARGV[3]) end
event(ARGV[2])
save_job()
return { 'OK' }
