-- Store commits, each by itself. KEYS and ARGV: time; then for each commit the keys and words in the order below.
-- Answers for each: 0 conflict, 1 stored, 2 stored before; and the interests that were replaced (after a conflict: that
-- are there).
local call, match, sub = redis.call, string.match, string.sub
local now = micros(ARGV[1])
local answer = {}

local function each(keys, behind, change)
  for key in string.gmatch(keys, '[^\t]+') do change(key .. behind) end
end

for n = 1, #KEYS / 10 do
  local key, timers, leases, outbox, sending, index, kinds, names, ids, endings = unpack(KEYS, n * 10 - 9, n * 10)
  local id, expected, commit_id, body, facets, keys, wake, ended, start, interests, record, sent, messages =
    unpack(ARGV, n * 13 - 11, n * 13 + 1)
  local stored = call('LINDEX', key, 0)
  local code, replaced, facets_before, wake_before, keys_before = 0, '', false, '', ''
  if not stored then
    if expected == '' then
      code = 1
      call('RPUSH', key, body, start, interests == '=' and '' or interests, record)
      call('ZADD', ids, 0, id)
    end
  elseif stored ~= '' then
    local commit_before
    commit_before, facets_before, wake_before, keys_before =
      match(stored, '^[^\n]*\n[^\n]*\n([^\n]*)\n([^\n]*)\n([^\n]*)\n[^\n]*\n[^\n]*\n([^\n]*)')
    if commit_before == commit_id then
      code = 2
    elseif expected ~= '' and sub(stored, 1, #expected) == expected then
      code = 1
      call('LSET', key, 0, body)
      call('RPUSH', key, record)
      if interests ~= '=' then
        replaced = call('LINDEX', key, 2)
        call('LSET', key, 2, interests)
      end
    else
      replaced = call('LINDEX', key, 2)
    end
  end
  if code == 1 then
    local saga, started = match(start, '^([^\n]*)\n([^\n]*)')
    local behind = ':' .. started .. ':' .. id
    if facets ~= facets_before then
      if facets_before then
        local kind = saga .. ':' .. facets_before
        call('ZREM', index, kind .. behind)
        if call('HINCRBY', kinds, kind, -1) == 0 then call('HDEL', kinds, kind) end
        if ended == '' then call('ZREM', endings, id) end
      end
      call('ZADD', index, 0, saga .. ':' .. facets .. behind)
      call('HINCRBY', kinds, saga .. ':' .. facets, 1)
    end
    if keys ~= keys_before then
      each(keys_before, behind, function(name) call('ZREM', names, name) end)
      each(keys, behind, function(name) call('ZADD', names, 0, name) end)
    end
    if wake ~= wake_before then
      if wake == '' then
        call('ZREM', timers, id)
      else
        call('ZADD', timers, wake, id)
      end
    end
    if wake_before ~= '' then
      call('ZREM', leases, id)
    end
    if ended ~= '' then
      call('ZADD', endings, ended, id)
    end
    if sent ~= '' then
      call('HSET', outbox, sent, messages)
      call('ZADD', sending, now, sent)
    end
  end
  answer[2 * n - 1] = code
  answer[2 * n] = replaced
end
return answer
