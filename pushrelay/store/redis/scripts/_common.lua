-- The beginning of every script. KEYS[1] is the hash `meta`; the names of all other keys begin like its own.
--   meta       e: epoch, g: generation, r: run_id under which the epoch was last used, s: number of the last batch
--              that was published, f: floor (the highest offset of all forgotten destinations), o: number of the last
--              order, n:<node>: number and answer of the node's last batch, u:<node>: until when the users of a node
--              that was stopped may come back to others
--   d:<dest>   o: last offset, t: highest offset lost to a limit, a: acknowledged offset, w: until when somebody waits
--              for acknowledgements, c: `o` when sweep last looked. q, g and x describe the publications at the end
--              whose publishers set their expiry: the last one, the offset before the first, and the latest expiry.
--   s:<dest>   list of what is kept: "offset generation created expires …", the oldest first
--   k:<key>    "offset connections fingerprint created" of a push with an idempotency key
--   p:<dest>   by node: "connections since"
--   n:<node>   set of the destinations that the node holds
--   held       sorted set of the destinations that some node holds, all with the score 0
--   nodes      by node: "lease information"; the lease ends at this time, in seconds since 1970
--   marks      by name: what somebody who takes publications from elsewhere has stored
--   due        sorted set of destinations, by when sweep looks at them
--   orders     list of what all nodes must do: "number order"
-- Everything is checked before anything is written: an error keeps what was written before it.
local call = redis.call
local meta = KEYS[1]
local prefix = string.sub(meta, 1, -5)

-- Return a whole number without an exponent.
local function whole(number)
  return string.format('%.0f', number)
end

-- Return the last offset of a destination, the highest one lost to a limit, the acknowledged one, and whether a list exists.
local function tip(dest, now)
  local d = call('HMGET', prefix .. 'd:' .. dest, 'o', 't', 'a', 'g', 'q', 'x')
  if not d[1] then
    local floor = tonumber(call('HGET', meta, 'f') or 0)
    return floor, floor, floor, false
  end
  local offset, trimmed, has_list = tonumber(d[1]), tonumber(d[2] or 0), true
  if call('EXISTS', prefix .. 's:' .. dest) == 0 then
    has_list = false
    local lost = offset
    if d[5] == d[1] and tonumber(d[6]) <= now then lost = tonumber(d[4]) end
    if lost > trimmed then trimmed = lost end
  end
  return offset, trimmed, tonumber(d[3] or 0), has_list
end

-- Return the seconds since 1970 by Redis's clock, so that the clocks of the nodes need not agree.
local function redis_time()
  local t = call('TIME')
  return t[1] + t[2] / 1000000
end
