-- The first members of sorted sets, by score. KEYS: each set and that of the leases on it. ARGV: time; 'leases' to leave
-- out what is leased, or ''; the score to stop at, as ZRANGEBYSCORE takes it, or '' for an age before now; that age; a
-- sign before it ('(' excludes it); how many of each.
-- Answers for each set that is not empty: its number, then members and scores.
local now = micros(ARGV[1])
local leases, stop, count = ARGV[2] ~= '', ARGV[3], tonumber(ARGV[6])
if stop == '' then stop = ARGV[5] .. string.format('%.0f', now - ARGV[4]) end

local function page(key, length)
  return redis.call('ZRANGEBYSCORE', key, '-inf', stop, 'WITHSCORES', 'LIMIT', 0, length)
end

local answer = {}
for n = 1, #KEYS / 2 do
  local key = KEYS[2 * n - 1]
  local found = page(key, count)
  if #found > 0 then
    local held = {}
    if leases then
      local live = redis.call('ZRANGEBYSCORE', KEYS[2 * n], '(' .. now, '+inf', 'WITHSCORES')
      if #live > 0 then
        for i = 1, #live, 2 do held[live[i]] = true end
        found = page(key, count + #live / 2)
      end
    end
    local row = { n }
    for i = 1, #found, 2 do
      if not held[found[i]] and #row < 1 + 2 * count then
        row[#row + 1] = found[i]
        row[#row + 1] = found[i + 1]
      end
    end
    answer[#answer + 1] = row
  end
end
return answer
