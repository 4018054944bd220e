-- Store a batch as batch.lua does, and change a mark with it. ARGV: what batch.lua takes, then the mark's name, its text
-- before and after. The error OVERTAKEN means that the mark has another text, and that nothing was stored.
-- batch.lua is the body of this function; see scripts.py.
local function store_batch()
  -- BATCH --
end

local mark_after, mark_before, mark = table.remove(ARGV), table.remove(ARGV), table.remove(ARGV)
local state = call('HMGET', meta, 'e', 'r', 'n:' .. ARGV[1])
local is_current = state[1] == ARGV[3] and state[2] == ARGV[4]
-- A batch that is sent again has changed the mark already.
local is_again = state[3] and string.match(state[3], '^%d+') == ARGV[2]
if is_current and not is_again and (call('HGET', prefix .. 'marks', mark) or '') ~= mark_before then
  return redis.error_reply('OVERTAKEN the mark has another text')
end
local reply = store_batch()
if not reply.err and not is_again then call('HSET', prefix .. 'marks', mark, mark_after) end
return reply
