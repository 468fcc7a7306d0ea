-- The first or last members of indexes between two texts. KEYS: the indexes. ARGV: 'newest' or 'oldest'; how many of
-- each, or -1; then for each the bounds, as ZRANGEBYLEX takes them. Answers for each that is not empty: its number and
-- the members.
local answer = {}
for n = 1, #KEYS do
  local low, high = ARGV[2 * n + 1], ARGV[2 * n + 2]
  local found
  if ARGV[1] == 'newest' then
    found = redis.call('ZREVRANGEBYLEX', KEYS[n], high, low, 'LIMIT', 0, ARGV[2])
  else
    found = redis.call('ZRANGEBYLEX', KEYS[n], low, high, 'LIMIT', 0, ARGV[2])
  end
  if #found > 0 then
    answer[#answer + 1] = { n, found }
  end
end
return answer
