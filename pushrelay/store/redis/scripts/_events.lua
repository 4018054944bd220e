-- The event queue, for the scripts that use it.
--   e:<topic>        list of events, the oldest first: "number at kind size length-of-id length-of-name ", then id, name and
--                    body at once; the numbers are consecutive
--   events           l:<topic>: number of the last event, b:<topic>: bytes of those in the list
--   readers:<topic>  by reader: "number of the last event that it has, when it unsubscribed or 0"
--   notes:<kind>     texts by key
--   sender           word of the node that sends, until its lease ends
--   wanted           "grace restart events bytes word" while webhooks are wanted: seconds until a destination that nobody
--                    holds is offline, the same after its node is gone, the bounds of a topic, and see want.lua
--   online           set of destinations that were reported online, and not offline since
--   leaving          sorted set of destinations that nobody holds, by when they count as offline

-- Drop the oldest event of a topic.
local function pop_event(topic)
  local event = call('LPOP', prefix .. 'e:' .. topic)
  call('HINCRBY', prefix .. 'events', 'b:' .. topic, '-' .. string.match(event, '^%d+ %S+ %S+ (%d+)'))
end

-- Queue an event. Return the number of events that were dropped to make room.
local function queue_event(topic, at, id, kind, name, body, most, most_bytes)
  local events, list = prefix .. 'events', prefix .. 'e:' .. topic
  local number = call('HINCRBY', events, 'l:' .. topic, 1)
  local size = 100 + #name + #body
  if id == '' then id = call('HGET', meta, 'e') .. '-' .. whole(number) end
  local head = table.concat({whole(number), at, kind, size, #id, #name}, ' ')
  local entry = head .. ' ' .. id .. name .. body
  local count = call('RPUSH', list, entry)
  local bytes, dropped = call('HINCRBY', events, 'b:' .. topic, size), 0
  while count > most or (bytes > most_bytes and count > 1) do
    pop_event(topic)
    bytes, count, dropped = tonumber(call('HGET', events, 'b:' .. topic)), count - 1, dropped + 1
  end
  return dropped
end

-- Drop what all readers of a topic have, as much as takes some milliseconds.
local function drop_done(topic)
  local least
  local readers = call('HVALS', prefix .. 'readers:' .. topic)
  for _, each in ipairs(readers) do
    local upto, gone = string.match(each, '^(%S+) (%S+)')
    if tonumber(gone) == 0 and (not least or tonumber(upto) < least) then least = tonumber(upto) end
  end
  for _ = 1, 10000 do
    local first = least and call('LINDEX', prefix .. 'e:' .. topic, 0)
    if not first or tonumber(string.match(first, '^%d+')) > least then return end
    pop_event(topic)
  end
end

-- Return an error unless this word is the one of the node that sends, and the numbers of events are those of this epoch.
local function lease_error(word, epoch)
  if call('GET', prefix .. 'sender') ~= word then return redis.error_reply('LEASE another node sends the events now') end
  if call('HGET', meta, 'e') ~= epoch then return redis.error_reply('LEASE the store has another epoch') end
end

-- Have nodes that send learn that there are events.
local function wake_sender()
  call('PUBLISH', string.sub(prefix, 1, -2), '*3\r\n$0\r\n\r\n:0\r\n$1\r\ne\r\n')
end

-- Return the two times and the two bounds if webhooks are wanted.
local function wanted()
  local found = call('GET', prefix .. 'wanted')
  if not found then return nil end
  local grace, restart, most, most_bytes = string.match(found, '^(%S+) (%S+) (%S+) (%S+)')
  return {grace = tonumber(grace), restart = tonumber(restart), most = tonumber(most), most_bytes = tonumber(most_bytes)}
end

-- Queue an event of now about a destination; `rest` is "" or more fields of its body, with a comma before each.
local function report(hooks, kind, dest, rest)
  local body = '{"destination":' .. cjson.encode(dest) .. rest .. '}'
  queue_event('hooks', string.format('%.3f', redis_time()), '', kind, dest, body, hooks.most, hooks.most_bytes)
  hooks.reported = true
end

-- Note that some node holds a destination.
local function came(hooks, dest)
  call('ZREM', prefix .. 'leaving', dest)
  if call('SADD', prefix .. 'online', dest) == 1 then report(hooks, 'online', dest, '') end
end

-- Note that a node no longer holds a destination, which counts as offline after some seconds unless another one does.
local function left(dest, seconds)
  if call('EXISTS', prefix .. 'p:' .. dest) == 0 and call('SISMEMBER', prefix .. 'online', dest) == 1 then
    call('ZADD', prefix .. 'leaving', redis_time() + seconds, dest)
  end
end
