#!lua flags=allow-oom
--[[ cancel: hand out nothing more; settle what is ready or delayed as cancelled, a page at a time.
KEYS  1 meta
ARGV  1 clock skew  2 reason  3 batches to settle in this call, at most
Returns {'OK', more to settle (0/1), ended (0/1)} | {'GONE'}
Invariants: leased batches are not touched: their holders learn of it at the next renewal or commit, and what really ran is
      still committed; what is handed back or expires later is cancelled then; repeated, it goes on where it stopped.
]]
--- @include job
--- @include batch
--- @include cancelling

if not load_job() then return { 'GONE' } end
if ended() then return { 'OK', 0, 1 } end
if M.cancel ~= '1' then
  put('cancel', '1')
  put('state', 'sealed')
  if ARGV[2] ~= '' then put('reason', ARGV[2]) end
  call('DEL', TICKETS)
  event('cancel')
end
local more = cancel_page(tonumber(ARGV[3]))
return { 'OK', more and 1 or 0, save_job() and 1 or 0 }
