#!lua flags=allow-oom
--[[ renew: prolong leases of one job.
KEYS  1 meta
ARGV  1 clock skew  2 lease ms  then per lease: batch, epoch, token nonce
Returns {'OK', one number per lease}: 1 renewed, 2 renewed and the job is being cancelled, 0 lost | {'GONE'}
Invariants: a lease is renewed only for its token; nothing but deadlines changes.
]]
--- @include job
--- @include batch

if not load_job() then return { 'GONE' } end
local lease_ms, out, stale = tonumber(ARGV[2]), { 'OK' }, 0
for i = 3, #ARGV, 3 do
  if held_lease(ARGV[i], ARGV[i + 1], ARGV[i + 2]) then
    call('ZADD', LEASES, NOW + lease_ms, ARGV[i])
    out[#out + 1] = M.cancel == '1' and 2 or 1
  else
    stale = stale + 1
    out[#out + 1] = 0
  end
end
if stale > 0 then call('HINCRBY', META, 'stale_refused', stale) end
if #out - 1 > stale then
  if lease_ms > num('max_lease_ms') then put('max_lease_ms', lease_ms) end
  save_job()
end
return out
