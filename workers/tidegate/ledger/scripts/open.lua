#!lua
--[[ open: create the job, or find it.
KEYS  1 meta
ARGV  1 clock skew  2 digest of task and options  3 spec  4 task  5 queue  6 ttl ms  7 keep results (0/1)
      8 max pending bytes  9 max pending batches  10 ms of silence after which its producer counts as dead, 0: never
Returns {'OK', created, next_chunk, sealed, items} | {'CONFLICT'}
Invariants: an existing job is not changed, but for one that was cut short: it goes on, even if it had ended. Not allowed when the server is out of memory.
]]
--- @include job

local digest = call('HGET', META, 'digest')
if digest then
  if digest ~= ARGV[2] then return { 'CONFLICT' } end
  load_job()
  local goes_on = num('cut') == 1 and M.cancel ~= '1'
  if goes_on then
    put('state', 'open')
    put('cut', 0)
    put('reason', '')
    put('finished_ms', 0)
    M.refreshed_ms = 0
    event('goes on')
  end
  if M.state == 'open' and NOW - num('fed_ms') > 1000 then put('fed_ms', NOW) end
  if next(CHANGED) then save_job() end
  if goes_on then call('HSET', META, 'refreshed_ms', 0) end   -- the next chunk makes keys that have to get theirs
  return { 'OK', 0, num('next_chunk'), M.state == 'open' and 0 or 1, num('total') }
end
call('HSET', META, 'layout', LAYOUT, 'digest', ARGV[2], 'spec', ARGV[3], 'task', ARGV[4], 'queue', ARGV[5], 'ttl_ms', ARGV[6],
  'keep', ARGV[7], 'max_bytes', ARGV[8], 'max_batches', ARGV[9], 'state', 'open', 'created_ms', NOW,
  'silent_ms', ARGV[10], 'fed_ms', NOW, 'next_chunk', 0, 'total', 0, 'pending', 0, 'refreshed_ms', 0)
call('PEXPIRE', META, IDLE_MS)
return { 'OK', 1, 0, 0, 0 }
