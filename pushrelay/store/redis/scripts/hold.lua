-- Begin to hold a destination. ARGV: epoch, now, destination, seconds until a destination is forgotten. Return its last
-- offset. From now on it has one of its own: otherwise its first publication would be numbered by a floor that may have
-- risen in the meantime, and that would look as if something were missing.
if call('HGET', meta, 'e') ~= ARGV[1] then return redis.error_reply('EPOCH the store has another epoch') end
local dest = ARGV[3]
local d = prefix .. 'd:' .. dest
local offset = call('HGET', d, 'o')
if not offset then
  offset = call('HGET', meta, 'f') or '0'
  -- A Redis that refuses writes, because it is full or has no replica, must still let clients register.
  local written = redis.pcall('HSET', d, 'o', offset, 't', offset, 'a', offset)
  if type(written) == 'number' then redis.pcall('ZADD', prefix .. 'due', ARGV[2] + ARGV[4], dest) end
end
return tonumber(offset)
