-- Report destinations offline that nobody has held for long enough. ARGV: where SCAN goes on. Return where it goes on next
-- time, and 1 if there is more to report.
local hooks, now = wanted(), redis_time()
if not hooks then return {ARGV[1], 0} end
local due = call('ZRANGEBYSCORE', prefix .. 'leaving', '-inf', now, 'LIMIT', 0, 500)
for _, dest in ipairs(due) do
  call('ZREM', prefix .. 'leaving', dest)
  if call('EXISTS', prefix .. 'p:' .. dest) == 0 and call('SREM', prefix .. 'online', dest) == 1 then
    report(hooks, 'offline', dest, '')
  end
end
-- Those that were left while webhooks were not wanted, or by nodes of an older version.
local scanned = call('SSCAN', prefix .. 'online', ARGV[1], 'COUNT', 200)
for _, dest in ipairs(scanned[2]) do
  if not call('ZSCORE', prefix .. 'leaving', dest) then left(dest, hooks.restart) end
end
if hooks.reported then wake_sender() end
return {scanned[1], #due == 500 and 1 or 0}
