-- Drop events that were queued before a time, some at a time. ARGV: topic, time. Return their number.
local list, before = prefix .. 'e:' .. ARGV[1], tonumber(ARGV[2])
for count = 0, 4999 do
  local first = call('LINDEX', list, 0)
  if not first or tonumber(string.match(first, '^%d+ (%S+)')) >= before then return count end
  pop_event(ARGV[1])
end
return 5000
