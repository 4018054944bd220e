-- Have the scripts report who is online. ARGV: grace, restart, most events, most bytes (see _events.lua), seconds for which
-- they do so, a random word. Return the word with which that began: if it is new, each node writes again what it holds.
local key = prefix .. 'wanted'
local found = call('GET', key)
local word = found and string.match(found, '(%S+)$') or ARGV[6]
call('SET', key, table.concat({ARGV[1], ARGV[2], ARGV[3], ARGV[4], word}, ' '), 'EX', ARGV[5])
return word
