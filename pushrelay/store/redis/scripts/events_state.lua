-- ARGV: topic. Return the number of the last event, how many are queued, their bytes, when the oldest was queued or "";
-- then each reader and its cursor.
local topic = ARGV[1]
local state = call('HMGET', prefix .. 'events', 'l:' .. topic, 'b:' .. topic)
local oldest = call('LINDEX', prefix .. 'e:' .. topic, 0)
local answer = {tonumber(state[1] or 0), call('LLEN', prefix .. 'e:' .. topic), tonumber(state[2] or 0),
  oldest and string.match(oldest, '^%d+ (%S+)') or ''}
for _, each in ipairs(call('HGETALL', prefix .. 'readers:' .. topic)) do answer[#answer + 1] = each end
return answer
