-- Change the cursor of a reader. ARGV: word of the node that sends, epoch, topic, reader, number of the last event that it has
-- or "", when it unsubscribed or "". A cursor never goes back.
local refused = lease_error(ARGV[1], ARGV[2])
if refused then return refused end
local topic, reader, to = ARGV[3], ARGV[4], tonumber(ARGV[5])
local found = call('HGET', prefix .. 'readers:' .. topic, reader)
if not found then return 0 end
local upto, gone = string.match(found, '^(%S+) (%S+)')
if to and to > tonumber(upto) then upto = ARGV[5] end
if ARGV[6] ~= '' then gone = ARGV[6] end
call('HSET', prefix .. 'readers:' .. topic, reader, upto .. ' ' .. gone)
drop_done(topic)
return 1
