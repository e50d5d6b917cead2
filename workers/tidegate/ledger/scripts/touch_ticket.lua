#!lua flags=allow-oom
--[[ touch_ticket: note that a ticket goes back to the queue's tail.
KEYS  1 meta
ARGV  1 clock skew  2 ticket
Returns 1 if the ticket is in the window, else 0 (do not send it)
Invariants: never adds a ticket.
]]
--- @include job
--- @include tickets

if not load_job() or ended() then return 0 end
if not see_ticket(ARGV[2]) then return 0 end
call('ZADD', TICKETS, NOW, ARGV[2])
save_job()
return 1
