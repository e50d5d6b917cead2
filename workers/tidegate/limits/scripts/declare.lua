#!lua flags=allow-oom
-- declare: say what a limit is; who declared last decides for the whole cluster.
--
-- KEYS[1]  the limit (hash)
-- ARGV[1]  kind: "rate" or "concurrency"
-- ARGV[2]  rate: slot interval, ns      concurrency: permits
-- ARGV[3]  rate: tolerance, us          concurrency: 0
-- ARGV[4]  version: 0 for "I am the newest", else the version that an earlier declaration of the same agent was given
-- ARGV[5]  time to live, ms
--
-- Returns  {version of this declaration, 1 if it is the one in force, version in force}
--
-- Invariants: the definition in force is the one with the highest version (server time in ms, raised until unique).
-- What was granted stays granted: tat, permits and a pause are kept when the definition changes.
-- Repeating it with the version it returned changes nothing.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local current = tonumber(redis.call('HGET', KEYS[1], 'version') or 0)
local version = tonumber(ARGV[4])
if version == 0 then
  version = math.max(now_ms, current + 1)
end
local in_force = 0
if version >= current then
  redis.call('HSET', KEYS[1], 'kind', ARGV[1], 'value', ARGV[2], 'tolerance', ARGV[3], 'version', string.format('%.0f', version))
  in_force = 1
  current = version
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return {version, in_force, current}
