-- What a commit reports: read it, check it whole, write it.
local MAX_STATS_BYTES = 65536   -- packed histogram fields of one commit: a few thousand

local function read_settlement()
  local t = cmsgpack.unpack(ARGV[10])
  return {
    settled = t[1], executions = t[2], retries = t[3], outcomes = t[4], hand_back = t[5], delay_ms = t[6],
    errors = t[7], traces = t[8], stats = ARGV[16],
    bits = ARGV[11], results = ARGV[12], failures = ARGV[13], attempts = ARGV[14], crashes = ARGV[15],
  }
end

-- Bits of `new` added to `old` (empty: none set): the union, how many bits `new` has, and whether they overlap.
local function unite(old, new)
  local out, count, overlap = {}, 0, false
  for at = 1, #new, 512 do
    local bytes = { string.byte(new, at, at + 511) }
    local before = { string.byte(old, at, at + 511) }
    for i = 1, #bytes do
      local b, a = bytes[i], before[i] or 0
      if b ~= 0 then
        if bit.band(a, b) ~= 0 then overlap = true end
        bytes[i] = bit.bor(a, b)
        while b > 0 do
          b = bit.band(b, b - 1)
          count = count + 1
        end
      else
        bytes[i] = a
      end
    end
    out[#out + 1] = string.char(unpack(bytes))
  end
  return table.concat(out), count, overlap
end

local function count(value)
  return type(value) == 'number' and value >= 0 and value < 2 ^ 53 and value % 1 == 0
end

-- Nil and the batch's bits after this commit if all is well, else why not. Nothing is written, and nothing that a write
-- could stumble over passes: a script that fails half-way leaves what it wrote before.
local function check_settlement(s, lease)
  local sum = 0
  for i = 1, 5 do
    if not count(s.outcomes[i]) then return 'an outcome is not a count' end
    sum = sum + s.outcomes[i]
  end
  if not (count(s.settled) and count(s.executions) and count(s.retries) and count(s.delay_ms)) then
    return 'a number is not a count'
  end
  for name, n in pairs(s.errors) do
    if type(name) ~= 'string' or not count(n) then return 'errors are not counts by name' end
  end
  for name, text in pairs(s.traces) do
    if type(name) ~= 'string' or type(text) ~= 'string' then return 'traces are not texts by fingerprint' end
  end
  if sum ~= s.settled then return 'outcomes do not add up to settled' end
  local bytes = math.ceil(lease.items / 8)
  if #s.attempts ~= 0 and #s.attempts ~= lease.items then return 'attempts must be a byte per item' end
  if #s.crashes ~= 0 and #s.crashes ~= lease.items then return 'crashes must be a byte per item' end
  if #s.stats > MAX_STATS_BYTES then return 'too many histogram fields' end
  local old = lease.flags % 2 == 1 and call('HGET', BITS, lease.batch) or ''
  if s.bits == '' then
    if s.settled == 0 then return nil, old end
    if s.settled ~= lease.items then return 'bits are missing' end
    if old ~= '' then return 'overlap' end
    return nil, ''
  end
  if #s.bits ~= bytes then return 'bits must be one per item, in whole bytes' end
  if lease.items % 8 ~= 0 and string.byte(s.bits, bytes) >= 2 ^ (lease.items % 8) then return 'bits beyond the batch' end
  local merged, count, overlap = unite(old, s.bits)
  if count ~= s.settled then return 'bits do not add up to settled' end
  if overlap then return 'overlap' end
  if s.settled > lease.left then return 'more items than are left' end
  return nil, merged
end

-- Histogram fields of the last commits wait in `recent`, packed, and are added to `stats` a few dozen at a time: that is a
-- quarter of the work. Readers add up both. Nobody looks into them before, and what is not a count is left out.
local FOLD = 32

local function fold_stats()
  local sums, lows, highs = {}, {}, {}
  for _, packed in ipairs(call('LRANGE', RECENT, 0, -1)) do
    local read, fields = pcall(cmsgpack.unpack, packed)
    for field, value in pairs(read and type(fields) == 'table' and fields or {}) do
      local tail = string.sub(field, -7)
      if not count(value) then
        -- Not a count: somebody's mistake, which must not stop the commits of others.
      elseif tail == '_min_ns' then
        if not lows[field] or value < lows[field] then lows[field] = value end
      elseif tail == '_max_ns' then
        if not highs[field] or value > highs[field] then highs[field] = value end
      else
        sums[field] = (sums[field] or 0) + value
      end
    end
  end
  -- Nor must a sum that leaves 64 bits: it stays what it was.
  for field, value in pairs(sums) do redis.pcall('HINCRBY', STATS, field, string.format('%.0f', value)) end
  for field, value in pairs(lows) do
    local known = tonumber(call('HGET', STATS, field) or nil)
    if not known or value < known then call('HSET', STATS, field, string.format('%.0f', value)) end
  end
  for field, value in pairs(highs) do
    local known = tonumber(call('HGET', STATS, field) or nil)
    if not known or value > known then call('HSET', STATS, field, string.format('%.0f', value)) end
  end
  call('DEL', RECENT)
end

local NAMES = { 'succeeded', 'failed', 'timed_out', 'cancelled', 'crashed' }

local function write_settlement(s)
  if s.results ~= '' and M.keep == '1' then call('XADD', RESULTS, '*', 'd', s.results) end
  if s.failures ~= '' then call('XADD', DEAD, '*', 'd', s.failures) end
  -- Also without failures: the account of a crash comes before the dead letter of the item that it is charged to.
  for fingerprint, text in pairs(s.traces) do
    if call('HLEN', TRACES) < 1000 then
      call('HSETNX', TRACES, string.sub(fingerprint, 1, 64), string.sub(text, 1, 16384))
    end
  end
  for name, n in pairs(s.errors) do count_error(string.sub(name, 1, 200), n) end
  for i = 1, 5 do
    if s.outcomes[i] > 0 then add(NAMES[i], s.outcomes[i]) end
  end
  if s.settled > 0 then add('pending', -s.settled) end
  add('attempts', s.executions)
  if s.retries > 0 then add('retries', s.retries) end
  if s.stats ~= '' and call('RPUSH', RECENT, s.stats) >= FOLD then fold_stats() end
end

-- What later holders of an unfinished batch have to know.
local function keep_progress(lease, merged)
  local function keep(key, value, flag)
    if value == '' then return end
    call('HSET', key, lease.batch, value)
    if math.floor(lease.flags / flag) % 2 == 0 then lease.flags = lease.flags + flag end
  end
  keep(BITS, merged, 1)
  keep(ATTEMPTS, ARGV[14], 2)
  keep(CRASHES, ARGV[15], 4)
end
