-- Forget a node that is gone, 500 destinations or users at a time. ARGV: node; if the node says so itself, the seconds in
-- which its users come back to other nodes, or "0". Return 1 if there is more.
local node, seconds = ARGV[1], tonumber(ARGV[2])
local leaves = seconds > 0
local lease = call('HGET', prefix .. 'nodes', node)
local over = lease and redis_time() - tonumber(string.match(lease, '^%S+'))
if over and over < 0 and not leaves then return 0 end
local held = call('SPOP', prefix .. 'n:' .. node, 500)
local hooks = wanted()
for _, dest in ipairs(held) do
  call('HDEL', prefix .. 'p:' .. dest, node)
  if call('EXISTS', prefix .. 'p:' .. dest) == 0 then call('ZREM', prefix .. 'held', dest) end
  if hooks then left(dest, hooks.restart) end -- its clients come back to other nodes
end
if #held == 500 then return 1 end
local users, now = prefix .. 'u:' .. node, redis_time()
if leaves and call('EXISTS', users) == 1 then
  -- Other nodes go on from here when that time is over.
  call('HSET', meta, 'u:' .. node, string.format('%.3f', now + seconds))
  call('HSET', prefix .. 'nodes', node, string.format('%.3f', now - 61) .. ' ')
  return 0
end
local till = call('HGET', meta, 'u:' .. node)
if till and tonumber(till) > now then return 0 end
local had = call('SPOP', users, 500)
for _, each in ipairs(had) do
  local dest, id = string.match(each, '^([^\n]*)\n(.*)$')
  member_left(hooks, node, dest, id)
end
publish_changes()
if hooks and hooks.reported then wake_sender() end
if #had == 500 then return 1 end
-- A node that was cut off may send its last batch again, and must get the answer to it: 60 s is the most that
-- redis_patience can be.
if over and over < 60 and not leaves then return 0 end
call('HDEL', prefix .. 'nodes', node)
call('HDEL', meta, 'n:' .. node, 'u:' .. node)
return 0
