-- Read sagas. KEYS: their lists. Answers the life of the data, then of each list the first two elements.
-- Redis names a life anew at each start and whenever a replica becomes primary (and now and then without need, as when
-- the first replica comes); '' if this user may not ask for it.
local told = redis.pcall('INFO', 'replication')
local answer = {type(told) == 'string' and string.match(told, 'master_replid:(%x+)') or ''}
for n = 1, #KEYS do
  answer[n + 1] = redis.call('LRANGE', KEYS[n], 0, 1)
end
return answer
