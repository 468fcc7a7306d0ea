-- Remove from the outbox what was sent. KEYS: outbox and sending, for each entry. ARGV: the entries.
for n = 1, #ARGV do
  redis.call('HDEL', KEYS[2 * n - 1], ARGV[n])
  redis.call('ZREM', KEYS[2 * n], ARGV[n])
end
return 1
