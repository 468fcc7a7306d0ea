-- Put messages aside. KEYS for each: messages, order, count. ARGV for each: version, id, body.
for n = 1, #KEYS / 3 do
  local messages, order, count = unpack(KEYS, 3 * n - 2, 3 * n)
  local version, id, body = unpack(ARGV, 3 * n - 2, 3 * n)
  if redis.call('HEXISTS', messages, id) == 0 then
    local entry = string.format('%s:%015d:%s', version, redis.call('INCR', count), id)
    redis.call('HSET', messages, id, entry .. '\n' .. body)
    redis.call('ZADD', order, 0, entry)
  end
end
return 1
