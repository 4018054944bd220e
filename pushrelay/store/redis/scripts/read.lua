-- ARGV: epoch ("" for any), now, destination, offset, most bytes, "1" for whole publications, of which the first may have more
-- bytes, "2" for whole ones of which none may, or "0" without their data.
-- Return last offset, highest offset lost, acknowledged offset, whether there is more, and what is kept after the offset.
local epoch, now, dest, after, most, whole_ones =
  ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] ~= '0'
local e = call('HGET', meta, 'e')
if epoch ~= '' and e ~= epoch then return redis.error_reply('EPOCH the store has another epoch') end
local offset, trimmed, acked, has_list = tip(dest, now)
local answer = {offset, trimmed, acked, 0}
if not has_list or offset <= after then return answer end
local s = prefix .. 's:' .. dest
-- The first publication after the offset: offsets rise, so half of the rest is ruled out by each look.
local low, high = 0, call('LLEN', s)
while low < high do
  local middle = math.floor((low + high) / 2)
  if tonumber(string.match(call('LINDEX', s, middle), '^%d+')) > after then high = middle else low = middle + 1 end
end
local bytes = 0
while true do
  local part = call('LRANGE', s, low, low + 63)
  for _, each in ipairs(part) do
    bytes = bytes + #each
    if whole_ones then
      if bytes > most and (#answer > 4 or ARGV[6] == '2') then
        answer[4] = 1
        return answer
      end
      answer[#answer + 1] = each
    else
      answer[#answer + 1] = string.match(each, '^%d+ %d+ %S+ %S+ %d ')
    end
  end
  if #part < 64 then return answer end
  low = low + 64
end
