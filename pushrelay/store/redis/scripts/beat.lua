-- Prove once a second that this connection writes to the store that the node knows, and renew the node's lease.
-- ARGV: node, seconds of the lease, information. Return epoch, run_id, number of the last batch, number of the last
-- order, size of the node's set of destinations, number of nodes that live, the error with which Redis refuses to write or
-- "", size of the node's set of users; then the nodes whose lease is over. A full Redis that takes no writes still delivers, so that is no reason for a new connection.
local node, now = ARGV[1], redis_time()
local written = redis.pcall('HSET', prefix .. 'nodes', node, string.format('%.3f', now + tonumber(ARGV[2])) .. ' ' .. ARGV[3])
local m = call('HMGET', meta, 'e', 'r', 's', 'o')
local answer = {m[1] or '', m[2] or '', tonumber(m[3] or 0), tonumber(m[4] or 0), call('SCARD', prefix .. 'n:' .. node), 0,
  type(written) == 'table' and written.err or '', call('SCARD', prefix .. 'u:' .. node)}
local nodes = call('HGETALL', prefix .. 'nodes')
for i = 1, #nodes, 2 do
  if tonumber(string.match(nodes[i + 1], '^%S+')) > now then
    answer[6] = answer[6] + 1
  else
    answer[#answer + 1] = nodes[i]
  end
end
return answer
