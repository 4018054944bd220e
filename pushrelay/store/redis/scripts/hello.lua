-- Begin a connection. ARGV: run_id, the node's epoch, the last batch number that it saw in it, "1" if what Redis has
-- accepted outlives its restart, a random word, node, seconds of its lease, information, channel, number
-- of the last order that the node has seen. Return epoch, number of
-- the last batch, generation, number of the last order. The epoch changes if something that was accepted may be missing.
-- The channel gets a message that no node reads: a user who may not publish is refused here, and not after each batch.
local run, epoch, known, durable, word = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]
call('PUBLISH', ARGV[9], '*3\r\n$0\r\n\r\n:0\r\n$1\r\nh\r\n')
local m = call('HMGET', meta, 'e', 'r', 's', 'o')
local now_epoch, seq, order = m[1], tonumber(m[3] or 0), tonumber(m[4] or 0)
local proves_loss = now_epoch == epoch and known > seq
if not now_epoch or proves_loss or (m[2] ~= run and not durable) then
  now_epoch = word
  call('HINCRBY', meta, 'g', 1)
  -- A store that was emptied, or has gone back, must not give a number twice: nodes carry out each one once.
  local seen = math.max(order, tonumber(ARGV[10]))
  if seen > 0 then
    order = seen + 1000
    call('HSET', meta, 'o', whole(order))
  end
end
if m[1] ~= now_epoch or m[2] ~= run then call('HSET', meta, 'e', now_epoch, 'r', run) end
-- A full Redis refuses this. The node can still read and hand out.
redis.pcall('HSET', prefix .. 'nodes', ARGV[6], string.format('%.3f', redis_time() + tonumber(ARGV[7])) .. ' ' .. ARGV[8])
return {now_epoch, seq, tonumber(call('HGET', meta, 'g')), order}
