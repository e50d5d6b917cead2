#!lua flags=allow-oom
--[[ sweep: make expired leases and due delayed batches ready; replace tickets that got lost; go on with a cancellation; seal
a job whose producer has fallen silent.
KEYS  1 meta
ARGV  1 clock skew  2 nonce  3 live slots of the cluster  4 stall ms  5 limit of each kind of work
Returns {'OK', queue, expired leases, due batches, {tickets}, ended (0/1), ms to live if ended} | {'GONE'}
Invariants: a lease is taken only after its deadline by this server's clock; deadlines further away than any lease ever
      granted (the clock went back) are brought back first; no outcome changes except by cancellation; work is bounded.
]]
--- @include job
--- @include batch
--- @include tickets
--- @include memo
--- @include cancelling

if not load_job() then return { 'GONE' } end
local queue = call('HGET', META, 'queue')
if ended() then return { 'OK', queue, 0, 0, {}, 1, call('PTTL', META) } end
local seen = recall('op:sweep', ARGV[2])
if seen then
  local expired, due = string.match(seen.flags, '^(%d+),(%d+)$')
  return { 'OK', queue, tonumber(expired), tonumber(due), seen.tickets, 0, 0 }
end
local slots, stall_ms, limit = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

-- A score later than `latest` cannot be: the clock was ahead when it was written. Bring it back.
local function clamp(key, latest)
  local late = call('ZRANGEBYSCORE', key, '(' .. string.format('%d', latest), '+inf', 'LIMIT', 0, limit)
  for i = 1, #late do call('ZADD', key, latest, late[i]) end
end
clamp(LEASES, NOW + num('max_lease_ms'))
clamp(DELAYED, NOW + num('max_delay_ms'))
clamp(TICKETS, NOW)

local expired = call('ZRANGEBYSCORE', LEASES, '-inf', string.format('(%d', NOW), 'LIMIT', 0, limit)
for i = 1, #expired do
  local text = call('HGET', LEASE, expired[i])
  call('ZREM', LEASES, expired[i])
  if text then
    call('HDEL', LEASE, expired[i])
    add('lost_leases', 1)
    give_back(unpack_lease(text), 0)
  end
end

local due = call('ZRANGEBYSCORE', DELAYED, '-inf', string.format('%d', NOW), 'LIMIT', 0, limit)
for i = 1, #due do
  call('ZREM', DELAYED, due[i])
  give_back(unpack_record(due[i]), 0)
end
if M.cancel == '1' then cancel_page(limit) end

-- Nobody will seal a job whose producer died. It ends with what it has, and says so; a producer that was only slow, or that
-- runs again under the same id, opens it again.
local silent_ms = M.state == 'open' and num('silent_ms') or 0
if silent_ms > 0 then
  local silence = NOW - num('fed_ms')
  if silence < 0 then put('fed_ms', NOW) end   -- the clock went back
  if silence > silent_ms then
    put('state', 'sealed')
    put('cut', 1)
    put('reason', string.format('cut short: its producer was silent for %d s after %d items', silence / 1000, num('total')))
    event('cut short')
  end
end

-- A ticket is lost when it was not seen for long although batches are ready and slots are free. How long depends on how
-- long the queue is, which nobody knows: patience doubles with every replacement and is taken back when a ticket comes
-- round quickly. So a long queue is not flooded, and a lost ticket costs seconds.
if slots > 0 then put('slots', slots) end
put('stall_ms', stall_ms)
if call('EXISTS', READY) == 1 and not held() then
  local free = math.max(slots, 1) - call('ZCARD', LEASES)
  local before = string.format('(%d', NOW - stall_ms * 2 ^ num('stall_k'))
  local lost = free > 0 and call('ZRANGEBYSCORE', TICKETS, '-inf', before, 'LIMIT', 0, math.min(limit, free)) or {}
  for i = 1, #lost do call('ZREM', TICKETS, lost[i]) end
  if #lost > 0 and num('stall_k') < 8 then add('stall_k', 1) end
end
local tickets = issue_tickets()

-- Claimers that have not asked for an hour will not ask again; only very many are worth the work.
if call('HLEN', SEEN) > 1000 then
  local scan = call('HSCAN', SEEN, num('seen_cursor'), 'COUNT', limit)
  local page = scan[2]
  put('seen_cursor', scan[1])
  for i = 1, #page, 2 do
    local at = tonumber(string.match(page[i + 1], '^[^|]*|(%d+)|'))
    if at < NOW - 3600000 then call('HDEL', SEEN, page[i]) end
  end
end
remember('op:sweep', ARGV[2], #expired .. ',' .. #due, '', tickets)
local ends = save_job()
return { 'OK', queue, #expired, #due, tickets, ends and 1 or 0, ends and num('ttl_ms') or 0 }
