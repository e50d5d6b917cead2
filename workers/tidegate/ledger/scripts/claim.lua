#!lua flags=allow-oom
--[[ claim: take the job's next ready batch.
KEYS  1 meta
ARGV  1 clock skew  2 claimer  3 nonce  4 lease ms  5 ticket
Returns {'LEASE', {lease}} | {'NO', word of Nothing}; lease as in include/grant.lua
Invariants: the same claimer and nonce get the same lease again and nothing is written; epoch grows with every grant; a ticket
      that is not in the window gets nothing; a ticket that finds nothing is retired.
]]
--- @include job
--- @include batch
--- @include tickets
--- @include memo
--- @include grant

if not load_job() then return { 'NO', 'gone' } end
local claimer, nonce = ARGV[2], ARGV[3]
local seen = recall(claimer, nonce)
local next, reply
if seen then
  reply = regrant(seen.next, nonce)
else
  if ended() then return { 'NO', 'gone' } end
  next, reply = grant(ARGV[5], claimer, nonce, tonumber(ARGV[4]))
  if next ~= 'retired' then
    remember(claimer, nonce, '', next, {})
    save_job()
  end
end
if type(reply) == 'string' then return { 'NO', reply } end
return { 'LEASE', reply }
