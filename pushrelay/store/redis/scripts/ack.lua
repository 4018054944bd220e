-- Acknowledge. ARGV: epoch, now, destination, offset, channel, sid. Return the last offset and the acknowledged one,
-- both of before. Tell all nodes if a push waits.
if call('HGET', meta, 'e') ~= ARGV[1] then return redis.error_reply('EPOCH the store has another epoch') end
local dest, to = ARGV[3], tonumber(ARGV[4])
local offset, _, acked = tip(dest, tonumber(ARGV[2]))
if to > offset then return {offset, acked} end
local d = prefix .. 'd:' .. dest
if to > acked then call('HSET', d, 'a', ARGV[4]) end
local waits = call('HGET', d, 'w')
if waits and tonumber(waits) >= redis_time() then
  local sid = ARGV[6]
  call('PUBLISH', ARGV[5], '*6\r\n$' .. #ARGV[1] .. '\r\n' .. ARGV[1] .. '\r\n:0\r\n$1\r\na\r\n$' .. #dest .. '\r\n' .. dest
    .. '\r\n:' .. ARGV[4] .. '\r\n$' .. #sid .. '\r\n' .. sid .. '\r\n')
end
return {offset, acked}
