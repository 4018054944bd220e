-- Become the node that sends events, or stay it. ARGV: its word, milliseconds of the lease; 0: send no longer. Return 1
-- if it may send now.
local sender = prefix .. 'sender'
local has = call('GET', sender)
if has and has ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  call('DEL', sender)
  return 0
end
call('SET', sender, ARGV[1], 'PX', ARGV[2])
return 1
