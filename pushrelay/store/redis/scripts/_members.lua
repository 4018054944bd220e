-- Who is at which destination, for the scripts that change it.
--   m:<dest>   by user: "since", the user's info as JSON, and the nodes that have brought the user along, a line each
--   u:<node>   set of the users that the node has brought along: "destination" and "user", a line each
-- Every change is published, as one message for a script: kind "m", then for each change the destination, the user, since,
-- info ("" if the user has left), and the number of members then.
local changes, changed = {}, 0

local function bulk(text)
  return '$' .. #text .. '\r\n' .. text .. '\r\n'
end

local function note_change(hooks, kind, dest, id, since, info)
  local told = kind == 'leave' and '' or info
  changed = changed + 1
  changes[changed] = bulk(dest) .. bulk(id) .. bulk(since) .. bulk(told) .. ':' .. call('HLEN', prefix .. 'm:' .. dest) .. '\r\n'
  if hooks and kind ~= 'update' then
    report(hooks, kind, dest, ',"member":{"id":' .. cjson.encode(id) .. ',"info":' .. info .. '}')
  end
end

-- Note that a node brings a user along. `how`: "+" if `info` is what the site said last, "=" if the node only repeats it.
local function member_came(hooks, node, dest, id, since, info, how)
  local m = prefix .. 'm:' .. dest
  local found = call('HGET', m, id)
  call('SADD', prefix .. 'u:' .. node, dest .. '\n' .. id)
  if not found then
    call('HSET', m, id, since .. '\n' .. info .. '\n' .. node .. '\n')
    note_change(hooks, 'join', dest, id, since, info)
    return
  end
  local first, old, nodes = string.match(found, '^([^\n]*)\n([^\n]*)\n(.*)$')
  if how == '=' then info = old end
  local is_new = not string.find('\n' .. nodes, '\n' .. node .. '\n', 1, true)
  if is_new then nodes = nodes .. node .. '\n' end
  if is_new or info ~= old then call('HSET', m, id, first .. '\n' .. info .. '\n' .. nodes) end
  if info ~= old then note_change(hooks, 'update', dest, id, first, info) end
end

-- Note that a node does not have a user any more.
local function member_left(hooks, node, dest, id)
  local m = prefix .. 'm:' .. dest
  local found = call('HGET', m, id)
  call('SREM', prefix .. 'u:' .. node, dest .. '\n' .. id)
  if not found then return end
  local since, info, nodes = string.match(found, '^([^\n]*)\n([^\n]*)\n(.*)$')
  nodes = '\n' .. nodes
  local at, to = string.find(nodes, '\n' .. node .. '\n', 1, true)
  if not at then return end
  nodes = string.sub(string.sub(nodes, 1, at - 1) .. string.sub(nodes, to), 2)
  if nodes == '' then
    call('HDEL', m, id)
    note_change(hooks, 'leave', dest, id, since, info)
  else
    call('HSET', m, id, since .. '\n' .. info .. '\n' .. nodes)
  end
end

local function publish_changes()
  if changed == 0 then return end
  local epoch = call('HGET', meta, 'e') or ''
  call('PUBLISH', string.sub(prefix, 1, -2),
    '*' .. 3 + 5 * changed .. '\r\n' .. bulk(epoch) .. ':0\r\n$1\r\nm\r\n' .. table.concat(changes))
end
