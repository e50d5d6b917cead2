-- Tickets: numbers in `tickets`, scored by when they were last seen. The window is min(slots, ready batches); a ticket
-- that is not in the window is worth nothing, so that losing or repeating messages changes no outcome.
local DEFAULT_SLOTS = 8   -- until a worker says how many there are

-- Numbers that the caller has to send now, so that as many tickets circulate as the window holds.
local function issue_tickets()
  local out = {}
  if ended() or held() or M.cancel == '1' then return out end
  local slots = num('slots')
  if slots <= 0 then slots = DEFAULT_SLOTS end
  local ready = call('LLEN', READY)
  if ready == 0 then return out end
  local missing = math.min(slots, ready, 1000) - call('ZCARD', TICKETS)
  for i = 1, missing do
    add('ticket_seq', 1)
    out[i] = num('ticket_seq')
    call('ZADD', TICKETS, NOW, out[i])
  end
  return out
end

-- Whether the ticket is one of the window; notes that it was seen. A ticket that comes round quickly takes back the
-- patience that a sweep had to learn (see sweep.lua).
local function see_ticket(ticket)
  local seen = call('ZSCORE', TICKETS, ticket)
  if not seen then return false end
  local age = NOW - tonumber(seen)
  if age > 200 or age < 0 then
    call('ZADD', TICKETS, NOW, ticket)
    local k = num('stall_k')
    if k > 0 and age * 4 < num('stall_ms') * 2 ^ k then put('stall_k', k - 1) end
  end
  return true
end
