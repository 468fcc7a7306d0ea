-- Leave of ended sagas what the ledger needs. KEYS for each: in the order below. ARGV: the moment before which they must
-- have ended; then the ids. Answers for each: its interests, or nil when it is gone.
local answer = {}
for n = 1, #KEYS / 7 do
  local key, index, kinds, names, ids, endings, ledger = unpack(KEYS, 7 * n - 6, 7 * n)
  local id = ARGV[n + 1]
  local ended = redis.call('ZSCORE', endings, id)
  answer[n] = false
  if ended and tonumber(ended) < tonumber(ARGV[1]) then
    local body, start, interests = unpack(redis.call('LRANGE', key, 0, 2))
    local facets, keys =
      string.match(body, '^[^\n]*\n[^\n]*\n[^\n]*\n([^\n]*)\n[^\n]*\n[^\n]*\n[^\n]*\n([^\n]*)')
    local saga, started = string.match(start, '^([^\n]*)\n([^\n]*)')
    local kind = saga .. ':' .. facets
    for name in string.gmatch(keys, '[^\t]+') do
      redis.call('ZREM', names, name .. ':' .. started .. ':' .. id)
    end
    redis.call('LTRIM', key, 0, 1)
    redis.call('LSET', key, 0, '')
    redis.call('ZREM', endings, id)
    redis.call('ZREM', ids, id)
    redis.call('ZREM', index, kind .. ':' .. started .. ':' .. id)
    if redis.call('HINCRBY', kinds, kind, -1) == 0 then redis.call('HDEL', kinds, kind) end
    redis.call('ZADD', ledger, ended, id)
    answer[n] = interests
  end
end
return answer
