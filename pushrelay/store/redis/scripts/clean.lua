-- Forget a node that is gone, 500 destinations at a time. ARGV: node, "1" if it says so itself. Return 1 if there is more.
local node, leaves = ARGV[1], ARGV[2] == '1'
local lease = call('HGET', prefix .. 'nodes', node)
local over = lease and redis_time() - tonumber(string.match(lease, '^%S+'))
if over and over < 0 and not leaves then return 0 end
local held = call('SPOP', prefix .. 'n:' .. node, 500)
local hooks = wanted()
for _, dest in ipairs(held) do
  call('HDEL', prefix .. 'p:' .. dest, node)
  if hooks then left(dest, hooks.restart) end -- its clients come back to other nodes
end
if #held == 500 then return 1 end
-- A node that was cut off may send its last batch again, and must get the answer to it: 60 s is the most that
-- redis_patience can be.
if over and over < 60 and not leaves then return 0 end
call('HDEL', prefix .. 'nodes', node)
call('HDEL', meta, 'n:' .. node)
return 0
