-- Records. A batch is in exactly one place, and its record is there: an element of `ready`, a member of `delayed`, or
-- the second half of its value in `lease`. `left`: items without an outcome. `flags`: 1 has bits, 2 has attempts, 4 has
-- crashes. `since`: when it became ready (server ms); in a lease, how long it had been ready (ms).
local function pack(r)
  return string.format('%d:%d:%d:%d:%d:%d:%d', r.batch, r.items, r.first, r.bytes, r.left, r.flags, r.since)
end

local function unpack_record(text)
  local batch, items, first, bytes, left, flags, since = string.match(text, '^(%d+):(%d+):(%d+):(%d+):(%d+):(%d+):(%d+)$')
  return {
    batch = tonumber(batch), items = tonumber(items), first = tonumber(first), bytes = tonumber(bytes),
    left = tonumber(left), flags = tonumber(flags), since = tonumber(since),
  }
end

-- A lease: `epoch:nonce:lease_ms:record:claimer`. Its deadline is its score in `leases`.
local function pack_lease(l)
  return string.format('%d:%s:%d:%s:%s', l.epoch, l.nonce, l.lease_ms, pack(l), l.claimer)
end

local function unpack_lease(text)
  local epoch, nonce, lease_ms, record, claimer =
    string.match(text, '^(%d+):([^:]*):(%d+):(%d+:%d+:%d+:%d+:%d+:%d+:%d+):(.*)$')
  local l = unpack_record(record)
  l.epoch, l.nonce, l.lease_ms, l.claimer = tonumber(epoch), nonce, tonumber(lease_ms), claimer
  return l
end

-- The lease of a batch if this token holds it, else nil.
local function held_lease(batch, epoch, nonce)
  local text = call('HGET', LEASE, batch)
  if not text then return nil end
  local l = unpack_lease(text)
  if l.epoch ~= tonumber(epoch) or l.nonce ~= nonce then return nil end
  return l
end

-- Forget what is kept for a batch whose last item has an outcome.
local function drop_batch(r)
  call('HDEL', PAYLOADS, r.batch)
  if r.flags > 0 then
    call('HDEL', BITS, r.batch)
    call('HDEL', ATTEMPTS, r.batch)
    call('HDEL', CRASHES, r.batch)
  end
  add('pending_bytes', -r.bytes)
  add('batches_done', 1)
end

-- Give every item that is left of a batch (in no place any more) this outcome.
local function settle_rest(r, outcome)
  add(outcome, r.left)
  add('pending', -r.left)
  drop_batch(r)
end

-- A batch that nobody holds any more: ready again, at the front; or cancelled, if the job is being cancelled.
local function give_back(r, delay_ms)
  if M.cancel == '1' then
    settle_rest(r, 'cancelled')
  elseif delay_ms > 0 then
    r.since = NOW + delay_ms
    if delay_ms > num('max_delay_ms') then put('max_delay_ms', delay_ms) end
    call('ZADD', DELAYED, NOW + delay_ms, pack(r))
  else
    r.since = NOW
    call('LPUSH', READY, pack(r))
  end
end

-- Count errors by type; at most 1,000 types, then "other".
local function count_error(name, n)
  if call('HEXISTS', ERRORS, name) == 0 and call('HLEN', ERRORS) >= 1000 then name = 'other' end
  call('HINCRBY', ERRORS, name, n)
end
