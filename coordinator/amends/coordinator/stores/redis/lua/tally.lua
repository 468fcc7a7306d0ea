-- How many members of indexes there are between two texts. KEYS: the indexes. ARGV: for each the bounds, as ZLEXCOUNT
-- takes them. Answers the sum.
local sum = 0
for n = 1, #KEYS do
  sum = sum + redis.call('ZLEXCOUNT', KEYS[n], ARGV[2 * n - 1], ARGV[2 * n])
end
return sum
