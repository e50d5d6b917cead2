#!lua
--[[ append: add one numbered chunk of batches.
KEYS  1 meta
ARGV  1 clock skew  2 chunk number  3 digest of the chunk  4 live slots, 0 if unknown  then per batch: items, payload
Returns {'OK', full, next_chunk, pending_batches, pending_bytes, {tickets}}
      | {'GONE'} | {'ENDED', state} ('cut short': open it again to go on) | {'GAP', next_chunk} | {'CONFLICT'} (the last chunk, with other content)
Invariants: a chunk is written once and in order; when `full`, nothing is written; whenever nothing is pending, a chunk is
      accepted whatever its size. Not allowed when the server is out of memory.
]]
--- @include job
--- @include tickets

if not load_job() then return { 'GONE' } end
local chunk, next_chunk = tonumber(ARGV[2]), num('next_chunk')
local limits = call('HMGET', META, 'max_bytes', 'max_batches', 'last_digest', 'last_tickets', 'cut')

local function reply(full, tickets)
  return { 'OK', full, num('next_chunk'), num('batches') - num('batches_done'), num('pending_bytes'), tickets }
end

if chunk < next_chunk then
  if chunk < next_chunk - 1 then return reply(0, {}) end
  if limits[3] ~= ARGV[3] then return { 'CONFLICT' } end
  local again = {}
  for n in string.gmatch(limits[4] or '', '%d+') do again[#again + 1] = tonumber(n) end
  return reply(0, again)
end
if limits[5] == '1' and M.cancel ~= '1' then return { 'ENDED', 'cut short' } end
if M.cancel == '1' or ended() then return { 'ENDED', 'cancelled' } end
if M.state ~= 'open' then return { 'ENDED', 'sealed' } end
if chunk > next_chunk then return { 'GAP', next_chunk } end

local count, bytes = (#ARGV - 4) / 2, 0
for i = 1, count do bytes = bytes + #ARGV[4 + 2 * i] end
local pending_batches = num('batches') - num('batches_done')
if pending_batches > 0 and (pending_batches + count > tonumber(limits[2])
    or num('pending_bytes') + bytes > tonumber(limits[1])) then
  return reply(1, {})
end

local batch, first = num('batches'), num('total')
for i = 1, count do
  local items, payload = tonumber(ARGV[3 + 2 * i]), ARGV[4 + 2 * i]
  call('HSET', PAYLOADS, batch, payload)
  call('RPUSH', READY, string.format('%d:%d:%d:%d:%d:0:%d', batch, items, first, #payload, items, NOW))
  batch, first = batch + 1, first + items
end
add('pending', first - num('total'))
put('total', first)
put('batches', batch)
add('pending_bytes', bytes)
put('next_chunk', chunk + 1)
put('fed_ms', NOW)
if tonumber(ARGV[4]) > 0 then put('slots', ARGV[4]) end
local tickets = issue_tickets()
put('last_digest', ARGV[3])
put('last_tickets', table.concat(tickets, ','))
save_job()
return reply(0, tickets)
