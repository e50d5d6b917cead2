-- The job whose meta key is KEYS[1]: its other keys, the server's clock, and its meta fields read and written once.
--- @include clock
local call = redis.call
local META = KEYS[1]
local PREFIX = string.sub(META, 1, -5)
local READY, DELAYED, LEASE, LEASES = PREFIX .. 'ready', PREFIX .. 'delayed', PREFIX .. 'lease', PREFIX .. 'leases'
local PAYLOADS, BITS = PREFIX .. 'payloads', PREFIX .. 'bits'
local ATTEMPTS, CRASHES = PREFIX .. 'attempts', PREFIX .. 'crashes'
local RESULTS, DEAD, TRACES = PREFIX .. 'results', PREFIX .. 'dead', PREFIX .. 'traces'
local ERRORS, STATS, SEEN = PREFIX .. 'errors', PREFIX .. 'stats', PREFIX .. 'seen'
local TICKETS, EVENTS, RECENT = PREFIX .. 'tickets', PREFIX .. 'events', PREFIX .. 'recent'
local IDLE_MS = 30 * 86400000   -- a job that nobody touches for so long is given up
local LAYOUT = '1'               -- of the keys and records; scripts leave a job of another layout alone
local REFRESH_MS = 60000        -- how old the keys' time to live may get before it is set again

-- The meta fields that nearly every script needs come in one call; the others when they are asked for.
local M, CHANGED = {}, {}

local function load_job()
  local v = call('HMGET', META, 'state', 'cancel', 'paused', 'parked', 'pending', 'batches_done', 'pending_bytes',
    'succeeded', 'attempts', 'epoch', 'max_lease_ms', 'keep', 'task', 'started_ms', 'refreshed_ms', 'layout')
  if v[16] and v[16] ~= LAYOUT then error('LAYOUT ' .. v[16]) end
  M.state, M.cancel, M.paused, M.parked, M.pending, M.batches_done, M.pending_bytes = v[1], v[2], v[3], v[4], v[5], v[6], v[7]
  M.succeeded, M.attempts, M.epoch, M.max_lease_ms, M.keep, M.task = v[8], v[9], v[10], v[11], v[12], v[13]
  M.started_ms, M.refreshed_ms = v[14], v[15]
  return M.state ~= false
end

local function num(field)
  local value = M[field]
  if value == nil then
    value = call('HGET', META, field)
    M[field] = value
  end
  return tonumber(value) or 0
end

local function put(field, value)
  M[field] = value
  CHANGED[field] = value
end

local function add(field, n) put(field, num(field) + n) end

local function ended() return M.state == 'done' or M.state == 'cancelled' end

local function held() return M.paused == '1' or M.parked == '1' end

-- Something changed that a person may wait for. At most 16 are kept.
local function event(what)
  add('event_seq', 1)
  call('XADD', EVENTS, 'MAXLEN', 16, string.format('%d-1', num('event_seq')), 'e', what)
end

local function every_key()
  return {
    META, READY, DELAYED, LEASE, LEASES, PAYLOADS, BITS, ATTEMPTS, CRASHES,
    RESULTS, DEAD, TRACES, ERRORS, STATS, RECENT, SEEN, TICKETS, EVENTS,
  }
end

local function expire_all(ms)
  for _, key in ipairs(every_key()) do call('PEXPIRE', key, ms) end
end

-- The last step of every script that changed the job: end it if nothing is left, write meta, set times to live.
-- Returns true when this call ended the job.
local function save_job()
  local ends = M.state == 'sealed' and num('pending') == 0
  if ends then
    put('state', M.cancel == '1' and 'cancelled' or 'done')
    put('finished_ms', NOW)
    call('DEL', TICKETS)
    event(M.state)
  end
  local refresh = not ended() and math.abs(NOW - num('refreshed_ms')) > REFRESH_MS
  if refresh then put('refreshed_ms', NOW) end
  local flat = {}
  for field, value in pairs(CHANGED) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  if #flat > 0 then call('HSET', META, unpack(flat)) end
  if ends then expire_all(num('ttl_ms')) elseif refresh then expire_all(IDLE_MS) end
  return ends
end
