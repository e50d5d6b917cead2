#!lua
--[[ open: create the job, or find it.
KEYS  1 meta
ARGV  1 clock skew  2 digest of task and options  3 spec  4 task  5 queue  6 ttl ms  7 keep results (0/1)
      8 max pending bytes  9 max pending batches
Returns {'OK', created, next_chunk, sealed, items} | {'CONFLICT'}
Invariants: an existing job is never changed. Not allowed when the server is out of memory.
]]
--- @include job

local digest = call('HGET', META, 'digest')
if digest then
  if digest ~= ARGV[2] then return { 'CONFLICT' } end
  load_job()
  return { 'OK', 0, num('next_chunk'), M.state == 'open' and 0 or 1, num('total') }
end
call('HSET', META, 'layout', LAYOUT, 'digest', ARGV[2], 'spec', ARGV[3], 'task', ARGV[4], 'queue', ARGV[5], 'ttl_ms', ARGV[6],
  'keep', ARGV[7], 'max_bytes', ARGV[8], 'max_batches', ARGV[9], 'state', 'open', 'created_ms', NOW,
  'next_chunk', 0, 'total', 0, 'pending', 0, 'refreshed_ms', 0)
call('PEXPIRE', META, IDLE_MS)
return { 'OK', 1, 0, 0, 0 }
