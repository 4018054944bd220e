-- ARGV: a name, most. Return the destinations after it that some node holds, in the order of their names.
local first = ARGV[1] == '' and '-' or '(' .. ARGV[1]
return call('ZRANGEBYLEX', prefix .. 'held', first, '+', 'LIMIT', 0, ARGV[2])
