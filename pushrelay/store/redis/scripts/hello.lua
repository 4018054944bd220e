-- Begin a connection. ARGV: run_id, the node's epoch, the last batch number that it saw in it, "1" if what Redis has
-- accepted outlives its restart, a random word. Return epoch, number of the last batch, generation, number of the last
-- order. The epoch changes if something that was accepted may be missing.
local run, epoch, known, durable, word = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]
local m = call('HMGET', meta, 'e', 'r', 's', 'o')
local now_epoch, seq = m[1], tonumber(m[3] or 0)
local proves_loss = now_epoch == epoch and known > seq
if not now_epoch or proves_loss or (m[2] ~= run and not durable) then
  now_epoch = word
  call('HINCRBY', meta, 'g', 1)
end
call('HSET', meta, 'e', now_epoch, 'r', run)
return {now_epoch, seq, tonumber(call('HGET', meta, 'g')), tonumber(m[4] or 0)}
