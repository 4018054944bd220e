-- Note which users a node has brought along. ARGV: node; then for each: destination, user, since, info, how ("+" or "=", see
-- _members.lua; "-" if the node does not have the user any more). Return the number of members of each destination.
local node, hooks, answer = ARGV[1], wanted(), {}
for i = 2, #ARGV, 5 do
  local dest, id, how = ARGV[i], ARGV[i + 1], ARGV[i + 4]
  if how == '-' then
    member_left(hooks, node, dest, id)
  else
    member_came(hooks, node, dest, id, ARGV[i + 2], ARGV[i + 3], how)
  end
  answer[#answer + 1] = call('HLEN', prefix .. 'm:' .. dest)
end
publish_changes()
if hooks and hooks.reported then wake_sender() end
return answer
