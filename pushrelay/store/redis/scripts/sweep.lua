-- Forget destinations that nobody has used for a while. ARGV: now, seconds until a destination is forgotten, most.
-- Return 1 if there is more to do. Their offsets are never given out again: the floor rises above them.
local now, forget_after, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local due = prefix .. 'due'
local found = call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, most)
local floor = tonumber(call('HGET', meta, 'f') or 0)
local before = floor
for _, dest in ipairs(found) do
  local d, s = prefix .. 'd:' .. dest, prefix .. 's:' .. dest
  local state = call('HMGET', d, 'o', 'c')
  local last = call('LINDEX', s, -1)
  local is_kept = last and tonumber(string.match(last, '^%d+ %d+ %S+ (%S+)')) > now
  if state[1] and (is_kept or state[1] ~= state[2] or call('EXISTS', prefix .. 'p:' .. dest) == 1) then
    call('HSET', d, 'c', state[1])
    call('ZADD', due, now + forget_after, dest)
  else
    if state[1] and tonumber(state[1]) > floor then floor = tonumber(state[1]) end
    call('DEL', d, s)
    call('ZREM', due, dest)
  end
end
if floor > before then call('HSET', meta, 'f', whole(floor)) end
return #found == most and 1 or 0
