#!lua flags=allow-oom
--[[ seal: say that all chunks are there; an empty job, or one whose items all have outcomes, ends at once.
KEYS  1 meta
ARGV  1 clock skew  2 number of chunks
Returns {'OK', ended (0/1)} | {'GONE'} | {'GAP', next_chunk}
Invariants: repeated, it changes nothing; a cancelled job is sealed already; a job is sealed only with exactly the chunks that its producer counted.
]]
--- @include job

if not load_job() then return { 'GONE' } end
if M.state ~= 'open' then
  if M.cancel ~= '1' and num('next_chunk') ~= tonumber(ARGV[2]) then return { 'GAP', num('next_chunk') } end
  if num('cut') == 1 and M.cancel ~= '1' then   -- it was complete, and only its producer was slow to say so
    put('cut', 0)
    put('reason', '')
    save_job()
  end
  return { 'OK', ended() and 1 or 0 }
end
if num('next_chunk') ~= tonumber(ARGV[2]) then return { 'GAP', num('next_chunk') } end
put('state', 'sealed')
event('sealed')
return { 'OK', save_job() and 1 or 0 }
