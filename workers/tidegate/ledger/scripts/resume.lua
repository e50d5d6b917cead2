#!lua flags=allow-oom
--[[ resume: undo a pause and a parking.
KEYS  1 meta
ARGV  1 clock skew  2 nonce  3 live slots, 0 if unknown
Returns {'OK', {tickets}} | {'GONE'}
Invariants: sent again, it returns the same tickets; a job that was not held only gets the tickets that its window lacks.
]]
--- @include job
--- @include tickets
--- @include memo

if not load_job() then return { 'GONE' } end
if ended() then return { 'OK', {} } end
local seen = recall('op:resume', ARGV[2])
if seen then return { 'OK', seen.tickets } end
if held() then
  put('paused', '0')
  put('parked', '0')
  if M.cancel ~= '1' then put('reason', '') end
  event('resumed')
end
if tonumber(ARGV[3]) > 0 then put('slots', ARGV[3]) end
local tickets = issue_tickets()
remember('op:resume', ARGV[2], '', '', tickets)
save_job()
return { 'OK', tickets }
