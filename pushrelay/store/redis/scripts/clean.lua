-- Forget a node that is gone, 500 destinations at a time. ARGV: node, "1" if it says so itself. Return 1 if there is more.
local node = ARGV[1]
local lease = call('HGET', prefix .. 'nodes', node)
if ARGV[2] ~= '1' and lease and tonumber(string.match(lease, '^%S+')) > redis_time() then return 0 end
local held = call('SPOP', prefix .. 'n:' .. node, 500)
for _, dest in ipairs(held) do call('HDEL', prefix .. 'p:' .. dest, node) end
if #held == 500 then return 1 end
call('HDEL', prefix .. 'nodes', node)
call('HDEL', meta, 'n:' .. node)
return 0
