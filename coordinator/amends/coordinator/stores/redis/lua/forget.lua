-- Take purged sagas from the ledger. KEYS: ledger and saga, for each. ARGV: the ids. Answers how many.
local forgotten = 0
for n = 1, #ARGV do
  if redis.call('ZREM', KEYS[2 * n - 1], ARGV[n]) == 1 then
    redis.call('DEL', KEYS[2 * n])
    forgotten = forgotten + 1
  end
end
return forgotten
