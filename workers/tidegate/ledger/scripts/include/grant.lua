-- Granting a batch: the reply to a claim, and the second half of a commit.

-- What a holder gets to know of its lease.
local function lease_reply(l, payload)
  local bits, attempts, crashes = '', '', ''
  if l.flags > 0 then
    bits = call('HGET', BITS, l.batch) or ''
    attempts = call('HGET', ATTEMPTS, l.batch) or ''
    crashes = call('HGET', CRASHES, l.batch) or ''
  end
  return {
    l.batch, l.epoch, l.items, l.first, payload, bits, attempts, crashes, l.since, M.task, M.cancel == '1' and 1 or 0,
  }
end

-- The answer to a request seen before: the lease it got, as long as it still holds it.
local function regrant(next, nonce)
  if not string.match(next, '^%d+$') then return next end
  local text = call('HGET', LEASE, next)
  local l = text and unpack_lease(text)
  local payload = l and l.nonce == nonce and call('HGET', PAYLOADS, next)
  if not payload then return 'empty' end
  return lease_reply(l, payload)
end

-- Takes the next ready batch. Returns (for the memo) its number or a word, and (for the caller) the lease or the word.
-- A batch whose payload was destroyed by somebody else ends as failed, in plain sight, and the next one is tried.
local function grant(ticket, claimer, nonce, lease_ms)
  if ended() or M.cancel == '1' then
    call('ZREM', TICKETS, ticket)
    return 'gone', 'gone'
  end
  if not see_ticket(ticket) then return 'retired', 'retired' end
  if held() then
    call('ZREM', TICKETS, ticket)
    return 'paused', 'paused'
  end
  for _ = 1, 16 do
    local text = call('LPOP', READY)
    if not text then break end
    local l = unpack_record(text)
    local payload = call('HGET', PAYLOADS, l.batch)
    if payload then
      add('epoch', 1)
      l.since = math.max(0, NOW - l.since)
      l.epoch, l.nonce, l.lease_ms, l.claimer = num('epoch'), nonce, lease_ms, claimer
      call('HSET', LEASE, l.batch, pack_lease(l))
      call('ZADD', LEASES, NOW + lease_ms, l.batch)
      if num('started_ms') == 0 then put('started_ms', NOW) end
      if lease_ms > num('max_lease_ms') then put('max_lease_ms', lease_ms) end
      return l.batch, lease_reply(l, payload)
    end
    count_error('PayloadLost', l.left)
    settle_rest(l, 'failed')
  end
  call('ZREM', TICKETS, ticket)
  return 'empty', 'empty'
end
