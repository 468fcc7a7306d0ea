-- Parts of lists. KEYS: the lists. ARGV: first and last index.
local answer = {}
for n = 1, #KEYS do
  answer[n] = redis.call('LRANGE', KEYS[n], ARGV[1], ARGV[2])
end
return answer
