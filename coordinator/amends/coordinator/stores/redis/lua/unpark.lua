-- The oldest messages put aside. KEYS: messages, order. ARGV: version, how many. Answers ids and values.
local answer = {}
local low, high = '[' .. ARGV[1] .. ':', '(' .. ARGV[1] .. ';'
for _, entry in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], low, high, 'LIMIT', 0, ARGV[2])) do
  local id = string.match(entry, '^[^:]*:[^:]*:(.*)$')
  answer[#answer + 1] = id
  answer[#answer + 1] = redis.call('HGET', KEYS[1], id)
end
return answer
