-- Lease members of sorted sets, unless somebody was quicker. KEYS for each: the set, its leases, and where to read what
-- is told of the member: a saga or an outbox. ARGV: time; microseconds; 'saga' or 'outbox'; then member and score, as
-- they were seen, of each. Answers for each: the first element of the saga, or the messages; or nil.
local now = micros(ARGV[1])
local till = string.format('%.0f', now + ARGV[2])
local answer = {}
for n = 1, #KEYS / 3 do
  local set, leases, source = unpack(KEYS, 3 * n - 2, 3 * n)
  local member, seen = ARGV[2 * n + 2], ARGV[2 * n + 3]
  local ends = redis.call('ZSCORE', leases, member)
  answer[n] = false
  if redis.call('ZSCORE', set, member) == seen and not (ends and tonumber(ends) > tonumber(now)) then
    -- what has run out is forgotten here, and not by all those who clear the outbox
    redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
    redis.call('ZADD', leases, till, member)
    if ARGV[3] == 'saga' then
      answer[n] = redis.call('LINDEX', source, 0)
    else
      answer[n] = redis.call('HGET', source, member)
    end
  end
end
return answer
