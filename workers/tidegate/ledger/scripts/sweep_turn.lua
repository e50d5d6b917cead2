#!lua flags=allow-oom
--[[ sweep_turn: let one sweeper at a time work.
KEYS  1 turn (string: the sweeper at work)
ARGV  1 sweeper  2 turn ms
Returns 1 if it is this sweeper's turn for the next `turn ms`
]]
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
