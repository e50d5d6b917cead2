-- The last reply to each claimer, so that a request that is sent again gets the same reply and changes nothing:
-- `nonce|when|flags|next|tickets`, where next is a batch number, one of the words of Nothing, or empty.
local function remember(claimer, nonce, flags, next, tickets)
  call('HSET', SEEN, claimer, string.format('%s|%d|%s|%s|%s', nonce, NOW, flags, next, table.concat(tickets, ',')))
end

local function recall(claimer, nonce)
  local text = call('HGET', SEEN, claimer)
  if not text or string.sub(text, 1, #nonce + 1) ~= nonce .. '|' then return nil end
  local flags, next, tickets = string.match(text, '^[^|]*|%d+|([^|]*)|([^|]*)|(.*)$')
  local numbers = {}
  for n in string.gmatch(tickets, '%d+') do numbers[#numbers + 1] = tonumber(n) end
  return { flags = flags, next = next, tickets = numbers }
end
