-- Give all nodes an order. ARGV: node that asks, epoch, channel, order. Return its number, and the nodes that live.
local node, epoch, order = ARGV[1], ARGV[2], ARGV[4]
local number = whole(call('HINCRBY', meta, 'o', 1))
local orders = prefix .. 'orders'
call('RPUSH', orders, number .. ' ' .. order)
call('LTRIM', orders, -1000, -1)
call('EXPIRE', orders, 3600)
call('PUBLISH', ARGV[3], '*6\r\n$' .. #epoch .. '\r\n' .. epoch .. '\r\n:0\r\n$1\r\no\r\n$' .. #node .. '\r\n' .. node
  .. '\r\n:' .. number .. '\r\n$' .. #order .. '\r\n' .. order .. '\r\n')
local now, nodes = redis_time(), call('HGETALL', prefix .. 'nodes')
local answer = {tonumber(number)}
for i = 1, #nodes, 2 do
  if tonumber(string.match(nodes[i + 1], '^%S+')) > now then answer[#answer + 1] = nodes[i] end
end
return answer
