-- Store a batch, and publish it as one message. ARGV: node, number of the batch, epoch, run_id, now, history_size,
-- history_ttl, seconds for which a key is known, channel, seconds until a destination is forgotten; then for each item:
--   destination, mode, body, idempotency key or "", fingerprint
-- mode: "k" kept, "o<expires>" kept until a time that its publisher chose, "n" not to be kept, "l" not kept and lost.
-- A key is "<items of its push>:<key>" at the first item of a push, and "0:<key>" at the others.
-- Return {0, answer}; {1, answer} if nothing was published because the batch was stored before, or all of it was.
-- answer: for each item its offset, connections (to other nodes; for a repeated item all that its first one had) and
-- state: 0 stored, 1 repeated, 2 the key was used for another push.
local node, number, epoch, run = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now, size, ttl, key_ttl, channel, forget_after =
  tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local m = call('HMGET', meta, 'e', 'r', 'g', 'f', 'n:' .. node)
if m[1] ~= epoch or m[2] ~= run then return redis.error_reply('EPOCH the store has another epoch') end
if m[5] then
  local last, answer = string.match(m[5], '^(%d+) (.*)$')
  if last == number then return {1, answer} end
  -- Its publishers were answered that it is not known. A connection that has ended may still deliver it.
  if tonumber(last) > tonumber(number) then return redis.error_reply('OLD a later batch of this node was stored') end
end
local generation, floor = m[3], tonumber(m[4] or 0)
local answer, message, published = {}, {}, 0

local function known_use(key)
  local use = call('GET', prefix .. 'k:' .. key)
  if not use then return nil end
  local offset, connections, fingerprint, created = string.match(use, '^(%d+) (%d+) (%S+) (%S+)$')
  if now - tonumber(created) >= key_ttl then return nil end
  return offset, connections, fingerprint
end

-- Return whether a key of the push that begins at ARGV[first] was used for another push.
local function is_reused(first, count)
  for at = first, first + 5 * (count - 1), 5 do
    local _, key = string.match(ARGV[at + 3], '^(%d+):(.*)$')
    local _, _, fingerprint = known_use(key)
    if fingerprint and fingerprint ~= ARGV[at + 4] then return true end
  end
  return false
end

local reused_until = 0
for at = 11, #ARGV, 5 do
  local dest, mode, body, key = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local n = #answer
  local offset, connections, skip
  if key ~= '' then
    local count
    count, key = string.match(key, '^(%d+):(.*)$')
    count = tonumber(count)
    if count > 0 and is_reused(at, count) then reused_until = at + 5 * count end
    if at < reused_until then
      answer[n + 1] = '0 0 2'
      skip = true
    else
      offset, connections = known_use(key)
      if offset then
        answer[n + 1] = offset .. ' ' .. connections .. ' 1'
        skip = true
      end
    end
  end
  if not skip then
    local d, s = prefix .. 'd:' .. dest, prefix .. 's:' .. dest
    offset = call('HINCRBY', d, 'o', 1)
    if offset == 1 and call('HLEN', d) == 1 then -- nobody holds it: see hold.lua
      if floor > 0 then
        offset = floor + 1
        call('HSET', d, 'o', whole(offset), 't', whole(floor), 'a', whole(floor))
      end
      call('ZADD', prefix .. 'due', now + forget_after, dest)
    end
    local o = offset < 1e14 and offset or whole(offset)
    local kind = string.byte(mode)
    if kind == 107 or kind == 111 then -- k, o
      local length = call('RPUSH', s, o .. ' ' .. generation .. ' ' .. body)
      while length > size do
        local dropped, expires, own = string.match(call('LPOP', s), '^(%d+) %S+ %S+ (%S+) (%d)')
        if own == '0' or tonumber(expires) > now then call('HSET', d, 't', dropped) end
        length = length - 1
      end
      call('EXPIRE', s, ttl)
    elseif kind == 108 then -- l
      call('HSET', d, 't', o)
    end
    if kind == 110 or kind == 111 then -- n, o: the end of the history whose loss is no loss, once it has expired
      local run_end = call('HMGET', d, 'q', 'x')
      local expires = kind == 111 and string.sub(mode, 2) or '0'
      if run_end[1] == whole(offset - 1) then
        if tonumber(run_end[2]) > tonumber(expires) then expires = run_end[2] end
        call('HSET', d, 'q', o, 'x', expires)
      else
        call('HSET', d, 'q', o, 'x', expires, 'g', whole(offset - 1))
      end
    end
    local others, all = 0, 0
    local held = call('HGETALL', prefix .. 'p:' .. dest)
    for i = 1, #held, 2 do
      local there = tonumber(string.match(held[i + 1], '^%d+'))
      all = all + there
      if held[i] ~= node then others = others + there end
    end
    if key ~= '' then
      call('SET', prefix .. 'k:' .. key, o .. ' ' .. all .. ' ' .. ARGV[at + 4] .. ' ' .. ARGV[5], 'EX', ARGV[8])
    end
    answer[n + 1] = o .. ' ' .. others .. ' 0'
    published = published + 1
    message[published] = '$' .. #dest .. '\r\n' .. dest .. '\r\n:' .. o .. '\r\n$' .. #body .. '\r\n' .. body .. '\r\n'
  end
end
answer = table.concat(answer, ' ')
call('HSET', meta, 'n:' .. node, number .. ' ' .. answer)
if published == 0 then return {1, answer} end
local seq = whole(call('HINCRBY', meta, 's', 1))
call('PUBLISH', channel, '*' .. 5 + 3 * published .. '\r\n$' .. #epoch .. '\r\n' .. epoch .. '\r\n:' .. seq
  .. '\r\n$1\r\np\r\n$' .. #node .. '\r\n' .. node .. '\r\n:' .. number .. '\r\n' .. table.concat(message))
return {0, answer}
