#!lua flags=allow-oom
--[[ commit: write what happened to items of a leased batch; give the batch back, or claim the next one, if asked to.
KEYS  1 meta
ARGV  1 clock skew  2 claimer  3 nonce  4 batch  5 epoch  6 token nonce  7 lease ms  8 claim next (0/1)  9 ticket
      10 settlement: msgpack [settled, executions, retries, [succeeded, failed, timed_out, cancelled, crashed], hand back,
         delay ms, errors, traces]  11 bits  12 results  13 failures  14 attempts  15 crashes
      16 histogram fields: msgpack map, or empty
Returns {'OK', batch_done, job_done, cancel_requested, {tickets}, next}: next is '', a word of Nothing, or a lease
      | {'STALE', reason} nothing written but a count | {'BAD', why} nothing written
Invariants: only the token's holder writes; an item is settled once (bits are disjoint); outcomes add up to `settled`;
      total = outcomes + pending, before and after; sent again, it returns the first reply and writes nothing.
]]
--- @include job
--- @include batch
--- @include tickets
--- @include memo
--- @include grant
--- @include settlement

if not load_job() then return { 'STALE', 'gone' } end
local claimer, nonce, batch = ARGV[2], ARGV[3], ARGV[4]

local function reply(flags, next, tickets)
  local done, job_done, cancel = string.match(flags, '^(%d)(%d)(%d)$')
  return { 'OK', tonumber(done), tonumber(job_done), tonumber(cancel), tickets, next }
end

local seen = recall(claimer, nonce)
if seen then return reply(seen.flags, regrant(seen.next, nonce), seen.tickets) end

local lease = held_lease(batch, ARGV[5], ARGV[6])
if not lease then
  call('HINCRBY', META, 'stale_refused', 1)
  return { 'STALE', 'token' }
end
local s = read_settlement()
local why, merged = check_settlement(s, lease)
if why == 'overlap' then
  call('HINCRBY', META, 'stale_refused', 1)
  return { 'STALE', why }
end
if why then return { 'BAD', why } end

write_settlement(s)
lease.left = lease.left - s.settled
local done = lease.left == 0
if done or s.hand_back then
  call('HDEL', LEASE, batch)
  call('ZREM', LEASES, batch)
end
if done then
  drop_batch(lease)
else
  keep_progress(lease, merged)
  if s.hand_back then
    give_back(lease, s.delay_ms)
  else
    call('HSET', LEASE, batch, pack_lease(lease))
    call('ZADD', LEASES, NOW + tonumber(ARGV[7]), batch)
  end
end

local next, answer, tickets = '', '', {}
if ARGV[8] == '1' then next, answer = grant(ARGV[9], claimer, nonce, tonumber(ARGV[7])) end
if s.hand_back and not done then tickets = issue_tickets() end
local ends = M.state == 'sealed' and num('pending') == 0
local flags = (done and '1' or '0') .. (ends and '1' or '0') .. (M.cancel == '1' and '1' or '0')
remember(claimer, nonce, flags, next, tickets)
save_job()
return reply(flags, answer, tickets)
