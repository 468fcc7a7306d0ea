-- How many sagas there are of each kind. KEYS: hashes. Answers for each that is not empty: its number and content.
local answer = {}
for n = 1, #KEYS do
  local kinds = redis.call('HGETALL', KEYS[n])
  if #kinds > 0 then
    answer[#answer + 1] = { n, kinds }
  end
end
return answer
