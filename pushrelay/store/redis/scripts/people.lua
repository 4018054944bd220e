-- ARGV: most bytes, destinations. Return for each a list of user, since and info of each member; fewer lists if all would
-- have more bytes, but at least one.
local left, answer = tonumber(ARGV[1]), {}
for i = 2, #ARGV do
  local members = call('HGETALL', prefix .. 'm:' .. ARGV[i])
  local list = {}
  for k = 1, #members, 2 do
    local since, info = string.match(members[k + 1], '^([^\n]*)\n([^\n]*)\n')
    local n = #list
    list[n + 1], list[n + 2], list[n + 3] = members[k], since, info
    left = left - #members[k] - #info - 50
  end
  if left < 0 and i > 2 then return answer end
  answer[#answer + 1] = list
end
return answer
