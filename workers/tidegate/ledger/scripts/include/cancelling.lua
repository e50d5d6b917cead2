-- Settle up to `limit` ready and delayed batches of a job that is being cancelled. Whether some are left.
local function cancel_page(limit)
  for _ = 1, limit do
    local text = call('LPOP', READY)
    if not text then
      text = call('ZRANGE', DELAYED, 0, 0)[1]
      if not text then return false end
      call('ZREM', DELAYED, text)
    end
    settle_rest(unpack_record(text), 'cancelled')
  end
  return call('EXISTS', READY) + call('EXISTS', DELAYED) > 0
end
