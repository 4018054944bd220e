-- ARGV: topic, number, most events, most bytes. Return the events after the number: at least one if there is one.
local list, after, most, bytes = prefix .. 'e:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first = call('LINDEX', list, 0)
if not first then return {} end
local start = math.max(0, after + 1 - tonumber(string.match(first, '^%d+')))
local found, answer = call('LRANGE', list, start, start + most - 1), {}
for i, each in ipairs(found) do
  bytes = bytes - tonumber(string.match(each, '^%d+ %S+ %S+ (%d+)'))
  if bytes < 0 and i > 1 then break end
  answer[i] = each
end
return answer
