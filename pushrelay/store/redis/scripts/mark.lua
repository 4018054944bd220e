-- Return the text of a mark, "" if it was never set. ARGV: epoch, name.
if call('HGET', meta, 'e') ~= ARGV[1] then return redis.error_reply('EPOCH the store has another epoch') end
return call('HGET', prefix .. 'marks', ARGV[2]) or ''
