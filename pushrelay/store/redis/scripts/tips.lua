-- ARGV: now, destinations. Return for each: last offset, highest offset lost to a limit, offset and generation of the
-- last publication in the list (0 without one).
local now, answer = tonumber(ARGV[1]), {}
for i = 2, #ARGV do
  local offset, trimmed, _, has_list = tip(ARGV[i], now)
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4] = offset, trimmed, 0, 0
  if has_list then
    local last, generation = string.match(call('LINDEX', prefix .. 's:' .. ARGV[i], -1), '^(%d+) (%d+)')
    answer[n + 3], answer[n + 4] = tonumber(last), tonumber(generation)
  end
end
return answer
