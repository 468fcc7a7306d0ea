-- Forget messages put aside. KEYS for each: messages, order. ARGV: the ids.
for n = 1, #ARGV do
  local value = redis.call('HGET', KEYS[2 * n - 1], ARGV[n])
  if value then
    redis.call('HDEL', KEYS[2 * n - 1], ARGV[n])
    redis.call('ZREM', KEYS[2 * n], string.match(value, '^[^\n]*'))
  end
end
return 1
