-- ARGV: node, destinations. Return for each the connections at other nodes that live, and the earliest since ("" if none).
local now, alive, answer = redis_time(), {}, {}
local nodes = call('HGETALL', prefix .. 'nodes')
for i = 1, #nodes, 2 do
  if tonumber(string.match(nodes[i + 1], '^%S+')) > now then alive[nodes[i]] = true end
end
for i = 2, #ARGV do
  local held, count, first = call('HGETALL', prefix .. 'p:' .. ARGV[i]), 0, ''
  for k = 1, #held, 2 do
    if held[k] ~= ARGV[1] and alive[held[k]] then
      local connections, since = string.match(held[k + 1], '^(%d+) (%S+)')
      count = count + tonumber(connections)
      if first == '' or tonumber(since) < tonumber(first) then first = since end
    end
  end
  answer[#answer + 1] = count
  answer[#answer + 1] = first
end
return answer
