-- Note which destinations a node holds. ARGV: node; then for each: destination, connections, since.
local node, hooks = ARGV[1], wanted()
for i = 2, #ARGV, 3 do
  if ARGV[i + 1] == '0' then
    call('HDEL', prefix .. 'p:' .. ARGV[i], node)
    call('SREM', prefix .. 'n:' .. node, ARGV[i])
    if call('EXISTS', prefix .. 'p:' .. ARGV[i]) == 0 then call('ZREM', prefix .. 'held', ARGV[i]) end
    if hooks then left(ARGV[i], hooks.grace) end
  else
    call('HSET', prefix .. 'p:' .. ARGV[i], node, ARGV[i + 1] .. ' ' .. ARGV[i + 2])
    call('SADD', prefix .. 'n:' .. node, ARGV[i])
    call('ZADD', prefix .. 'held', 0, ARGV[i])
    if hooks then came(hooks, ARGV[i]) end
  end
end
if hooks and hooks.reported then wake_sender() end
return call('SCARD', prefix .. 'n:' .. node)
