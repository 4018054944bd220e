-- A push waits for an acknowledgement. ARGV: destination, seconds. Return what is acknowledged already.
local d = prefix .. 'd:' .. ARGV[1]
if call('EXISTS', d) == 0 then return 0 end
local now, waits = redis_time(), call('HGET', d, 'w')
local till = now + tonumber(ARGV[2])
if not waits or tonumber(waits) < till then call('HSET', d, 'w', string.format('%.3f', till)) end
return tonumber(call('HGET', d, 'a') or 0)
