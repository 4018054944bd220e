-- Queue events and change notes, all or nothing. ARGV: most events, most bytes of a topic, number of events; for each of
-- them topic, at, id, kind, name, body; then for each note kind, key, "1" or "0" to remove it, value. Return the number
-- of events that were dropped to make room, or -1 if `sends` has no room.
local most, most_bytes, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local notes = 4 + 6 * count
local sends, bytes, dropped = 0, 0, 0
for i = 4, notes - 1, 6 do
  if ARGV[i] == 'sends' then sends, bytes = sends + 1, bytes + 100 + #ARGV[i + 4] + #ARGV[i + 5] end
end
if sends > 0 and (call('LLEN', prefix .. 'e:sends') + sends > most
    or tonumber(call('HGET', prefix .. 'events', 'b:sends') or 0) + bytes > most_bytes) then
  return -1
end
for i = 4, notes - 1, 6 do
  dropped = dropped + queue_event(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], most, most_bytes)
end
for i = notes, #ARGV, 4 do
  if ARGV[i + 2] == '1' then
    call('HSET', prefix .. 'notes:' .. ARGV[i], ARGV[i + 1], ARGV[i + 3])
  else
    call('HDEL', prefix .. 'notes:' .. ARGV[i], ARGV[i + 1])
  end
end
if count > 0 then wake_sender() end
return dropped
