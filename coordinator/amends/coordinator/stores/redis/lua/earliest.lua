-- When the first member of sorted sets is free. KEYS: each set and that of the leases on it. ARGV: time.
-- Answers the lowest score of all members that are not leased and of all leases, or nil.
local now = micros(ARGV[1])
local least
for n = 1, #KEYS / 2 do
  local first = redis.call('ZRANGE', KEYS[2 * n - 1], 0, 0, 'WITHSCORES')
  if #first > 0 then
    local live = redis.call('ZRANGEBYSCORE', KEYS[2 * n], '(' .. now, '+inf', 'WITHSCORES')
    if #live > 0 then
      local held = {}
      for i = 1, #live, 2 do held[live[i]] = true end
      local page = redis.call('ZRANGE', KEYS[2 * n - 1], 0, #live / 2, 'WITHSCORES')
      first = { live[1], live[2] }
      for i = #page - 1, 1, -2 do
        if not held[page[i]] and tonumber(page[i + 1]) < tonumber(first[2]) then first = { page[i], page[i + 1] } end
      end
    end
    if not least or tonumber(first[2]) < tonumber(least) then least = first[2] end
  end
end
return least
