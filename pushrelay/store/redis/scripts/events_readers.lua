-- Have exactly these readers of a topic. ARGV: word of the node that sends, epoch, topic, readers. Return each and its cursor.
local refused = lease_error(ARGV[1], ARGV[2])
if refused then return refused end
local topic, wants = ARGV[3], {}
local readers = prefix .. 'readers:' .. topic
local first = call('LINDEX', prefix .. 'e:' .. topic, 0)
local before = call('HGET', prefix .. 'events', 'l:' .. topic) or '0'
if first then before = whole(tonumber(string.match(first, '^%d+')) - 1) end
for i = 4, #ARGV do
  wants[ARGV[i]] = true
  call('HSETNX', readers, ARGV[i], before .. ' 0')
end
for _, each in ipairs(call('HKEYS', readers)) do
  if not wants[each] then call('HDEL', readers, each) end
end
drop_done(topic)
return call('HGETALL', readers)
