-- What may happen to a submission between its acceptance and its verdict. Called by tasks/ledger.py, which names
-- operation and arguments; script.lua and datasets.lua stand before it.

-- So many wait in Celery's list at most; the rest waits in its tenant's lane, where order can still be chosen. Each start
-- of a run hands on the next, so a few keep any number of workers busy.
local READY_LIMIT = 2
-- A run that began and was never heard of again so often is not begun once more.
local DEATHS_LIMIT = 3
-- Longer than a message takes from Celery's list into a worker's hands.
local GRACE_SECONDS = 5
-- Longer than what a worker has in hand waits for a pool process, however busy the machine.
local HELD_SECONDS = 30
-- Longer than any run may take (the hard limit is 120 s), shorter than a visibility timeout: until then a run whose worker
-- has said nothing is taken to be alive, and is not run again beside itself.
local RUN_SECONDS = 150
local DEAD_SECONDS = 7 * 24 * 3600
local FINAL = {SUCCESS = true, FAILURE = true, REVOKED = true}

local WAITING, STARTED, READY, LATER = key('waiting'), key('started'), key('ready'), key('later')
local RING, INFLIGHT, BYTES, PACE, DEAD = key('ring'), key('inflight'), key('bytes'), key('pace'), key('dead')

-- Celery's record of a state begins with it.
local function has_ended(id)
    return FINAL[string.match(redis.call('GETRANGE', RESULT .. id, 0, 31), '^{"status": "(%u+)"')] or false
end

local function publish(id, meta, expires)
    if expires then
        redis.call('SET', RESULT .. id, meta, 'EX', expires)
    else
        redis.call('SET', RESULT .. id, meta)  -- what is not finished is not forgotten
    end
    redis.call('PUBLISH', RESULT .. id, meta)
end

-- By priority, then in the order of arrival; a double holds both to two microseconds.
local function place(priority, submitted)
    return string.format('%.0f', priority * 1e15 + (submitted - 1.7e9) * 1e6)
end

local function line_up(id)
    local tenant, score = unpack(redis.call('HMGET', task(id), 'tenant', 'place'))
    if not tenant then return end  -- its record was removed by hand
    local lane = key('lane', tenant)
    if redis.call('ZADD', lane, score, id) == 1 and redis.call('ZCARD', lane) == 1 then
        redis.call('RPUSH', RING, tenant)
    end
end

local function leave_lane(id, tenant)
    local lane = key('lane', tenant)
    if redis.call('ZREM', lane, id) == 1 and redis.call('EXISTS', lane) == 0 then
        redis.call('LREM', RING, 1, tenant)
    end
end

local function hand_over(id, message)
    message = message or redis.call('HGET', task(id), 'message')
    if not message then return end  -- its record was removed by hand
    redis.call('LPUSH', QUEUE, message)
    redis.call('ZADD', READY, stamp(now), id)
end

-- What is due again lines up; then each tenant with a lane hands over one in turn.
local function refill()
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', LATER, '-inf', stamp(now), 'LIMIT', 0, 100)) do
        redis.call('ZREM', LATER, id)
        line_up(id)
    end
    while redis.call('ZCARD', READY) < READY_LIMIT do
        local tenant = redis.call('LPOP', RING)
        if not tenant then return end
        local lane = key('lane', tenant)
        hand_over(redis.call('ZPOPMIN', lane)[1])
        if redis.call('EXISTS', lane) == 1 then redis.call('RPUSH', RING, tenant) end
    end
end

local function count_in(tenant, bytes)
    redis.call('HINCRBY', INFLIGHT, tenant, 1)
    redis.call('INCRBY', BYTES, bytes)
end

local function count_out(tenant, bytes)
    if redis.call('HINCRBY', INFLIGHT, tenant, -1) <= 0 then redis.call('HDEL', INFLIGHT, tenant) end
    if redis.call('DECRBY', BYTES, bytes) <= 0 then redis.call('DEL', BYTES) end
end

-- Take a submission that has ended out of everything that leads to a run; its key is known as long as its result.
local function close(id, expires)
    redis.call('EXPIRE', key('key', id), expires)
    local tenant, bytes, data = unpack(redis.call('HMGET', task(id), 'tenant', 'bytes', 'dataset'))
    for _, set in ipairs({WAITING, STARTED, READY, LATER}) do redis.call('ZREM', set, id) end
    if not tenant then return end
    leave_lane(id, tenant)
    count_out(tenant, bytes)
    if data then let_go(data, id) end
    redis.call('LPUSH', PACE, stamp(now))
    redis.call('LTRIM', PACE, 0, 63)
    redis.call('EXPIRE', PACE, 3600)
end

local function wait_again(id)
    redis.call('HDEL', task(id), 'owner', 'missing')
    redis.call('ZREM', STARTED, id)
    redis.call('ZADD', WAITING, redis.call('HGET', task(id), 'submitted'), id)
end

-- Seconds between two ends, lately: when to ask again for room for one.
local function pace()
    local count = redis.call('LLEN', PACE)
    if count == 0 then return '5.0' end
    local mean = (now - tonumber(redis.call('LINDEX', PACE, -1))) / count
    return string.format('%.1f', math.max(0.5, math.min(30, mean)))
end

local function note(id, message, queued, tenant, priority, data, keep_seconds)
    redis.call('HSET', task(id), 'message', message, 'tenant', tenant, 'bytes', #message,
        'submitted', stamp(now), 'place', place(tonumber(priority), now))
    redis.call('HDEL', task(id), 'reason', 'dataset')
    if data ~= '' then
        redis.call('HSET', task(id), 'dataset', data)
        hold(data, id, tonumber(keep_seconds))
    end
    redis.call('PERSIST', task(id))
    redis.call('ZREM', DEAD, id)
    redis.call('ZADD', WAITING, stamp(now), id)
    count_in(tenant, #message)
    publish(id, queued)
end

-- A producer's. It needs no right to read what others have submitted.
function operations.submit(id, message, queued, tenant, priority, digest, most, most_bytes, most_for_tenant, channel,
                           event, data, keep_seconds)
    if digest ~= '' then
        local used_for = redis.call('GET', key('key', id))
        if used_for and used_for ~= digest then return {'conflict'} end
    end
    if redis.call('EXISTS', RESULT .. id) == 1 then return {'known'} end
    local open = redis.call('HEXISTS', task(id), 'message') == 1 and redis.call('HEXISTS', task(id), 'reason') == 0
    if open then  -- Celery was told to forget it; a dead one has a reason
        publish(id, queued)
        return {'known'}
    end
    if data ~= '' and not is_stored(data) then return {'dataset'} end
    if #message > tonumber(most_bytes) then return {'never'} end
    if redis.call('ZCARD', WAITING) + redis.call('ZCARD', STARTED) >= tonumber(most) then return {'queue', pace()} end
    if (tonumber(redis.call('GET', BYTES)) or 0) + #message > tonumber(most_bytes) then return {'bytes', pace()} end
    if (tonumber(redis.call('HGET', INFLIGHT, tenant)) or 0) >= tonumber(most_for_tenant) then
        return {'tenant', pace()}
    end
    if memory_is_short(0, SUBMISSION_SHARE) then return {'memory', pace()} end
    if digest ~= '' then redis.call('SET', key('key', id), digest) end
    note(id, message, queued, tenant, priority, data, keep_seconds)
    if redis.call('ZCARD', READY) < READY_LIMIT and redis.call('EXISTS', RING) == 0 then
        hand_over(id, message)
    else
        line_up(id)
    end
    redis.call('PUBLISH', channel, event)
    return {'accepted'}
end

-- A producer's: what no worker has begun ends here, for what runs the worker is to see to it.
function operations.cancel(id, verdict, expires, channel, event)
    if has_ended(id) then return 'ended' end
    if redis.call('EXISTS', RESULT .. id) == 0 then return 'unknown' end
    if redis.call('HEXISTS', task(id), 'owner') == 1 then
        redis.call('HSET', task(id), 'cancelled', 1)
        return 'running'
    end
    publish(id, verdict, expires)
    local message = redis.call('HMGET', task(id), 'message')[1]
    if message then redis.call('LREM', QUEUE, 1, message) end  -- with no worker about they would pile up
    close(id, expires)
    redis.call('DEL', task(id))
    redis.call('PUBLISH', channel, event)
    return 'cancelled'
end

-- A worker's main process, for a message that no client of ours has put into the queue.
function operations.adopt(id, message, queued, tenant, priority, due, data, keep_seconds)
    if has_ended(id) or redis.call('EXISTS', task(id)) == 1 then return 'known' end
    note(id, message, queued, tenant, priority, data, keep_seconds)
    if due ~= '' then redis.call('ZADD', LATER, due, id) else line_up(id) end
    refill()
    return 'adopted'
end

-- A pool process', before it does anything else. It asks again, as the same attempt, where it has heard no answer.
function operations.begin(id, worker, attempt, started, expires)
    redis.call('ZREM', READY, id)
    redis.call('ZREM', LATER, id)
    if has_ended(id) then
        if redis.call('EXISTS', task(id)) == 1 and not redis.call('ZSCORE', DEAD, id) then
            -- A worker without a ledger has stored its result.
            close(id, expires)
            redis.call('DEL', task(id))
        end
        refill()
        return {'ended', redis.call('GET', RESULT .. id)}
    end
    if redis.call('ZSCORE', DEAD, id) then return {'busy'} end  -- an old message; what it asked for was given up
    local tenant, owner, before = unpack(redis.call('HMGET', task(id), 'tenant', 'owner', 'attempt'))
    if not tenant then return {'run', 0, 0} end  -- its record was removed by hand
    leave_lane(id, tenant)
    if before ~= attempt then
        if owner then
            if now - (tonumber(redis.call('ZSCORE', STARTED, id)) or 0) < RUN_SECONDS then return {'busy'} end
            redis.call('HINCRBY', task(id), 'deaths', 1)
        end
        redis.call('HINCRBY', task(id), 'starts', 1)
    end
    redis.call('HSET', task(id), 'owner', worker, 'attempt', attempt)
    redis.call('HDEL', task(id), 'missing')
    local fence, deaths, tries, cancelled =
        unpack(redis.call('HMGET', task(id), 'starts', 'deaths', 'tries', 'cancelled'))
    redis.call('ZREM', WAITING, id)
    redis.call('ZADD', STARTED, stamp(now), id)
    refill()
    local word = cancelled and 'cancelled' or (tonumber(deaths) or 0) >= DEATHS_LIMIT and 'dead' or 'run'
    if word == 'run' then publish(id, started) end
    return {word, tonumber(fence), tonumber(tries) or 0}
end

-- A worker's, from a pool process (with the token of its start) or from the main one (without).
function operations.record(id, state, meta, expires, worker, fence, pause, reason)
    -- The result of a dead one expires before its record.
    if has_ended(id) or redis.call('ZSCORE', DEAD, id) then return 0 end
    local owner, starts, tenant, data = unpack(redis.call('HMGET', task(id), 'owner', 'starts', 'tenant', 'dataset'))
    if owner and owner ~= worker or fence ~= '' and starts and starts ~= fence then return 0 end
    if not FINAL[state] then
        publish(id, meta)
        if state == 'RETRY' and owner then
            wait_again(id)
            if pause ~= '' then
                redis.call('HINCRBY', task(id), 'tries', 1)
                redis.call('ZADD', LATER, stamp(now + tonumber(pause)), id)
            else  -- the connection was lost, and kombu puts the message back
                redis.call('ZADD', READY, stamp(now), id)
            end
        end
        return 1
    end
    publish(id, meta, expires)
    if state == 'FAILURE' and data then keep(data, DEAD_SECONDS) end  -- the dead may be put into the queue again
    close(id, expires)
    if state == 'FAILURE' and tenant then
        redis.call('HSET', task(id), 'reason', reason)
        redis.call('HDEL', task(id), 'owner', 'deaths', 'tries', 'missing', 'cancelled')
        redis.call('EXPIRE', task(id), DEAD_SECONDS)
        redis.call('ZREMRANGEBYSCORE', DEAD, '-inf', stamp(now - DEAD_SECONDS))
        redis.call('ZADD', DEAD, stamp(now), id)
    else
        redis.call('DEL', task(id))
    end
    refill()
    return 1
end

-- A worker's main process, after a lost connection and at its end: its runs were cut off in good order, nobody died.
function operations.release(worker)
    for _, id in ipairs(redis.call('ZRANGE', STARTED, 0, -1)) do
        if redis.call('HGET', task(id), 'owner') == worker then
            wait_again(id)
            redis.call('ZADD', READY, stamp(now), id)
        end
    end
end

-- A worker's main process, of one whose pool process has died, before the message goes back.
function operations.died(id, worker)
    if redis.call('HGET', task(id), 'owner') ~= worker then return end
    redis.call('HINCRBY', task(id), 'deaths', 1)
    wait_again(id)
    redis.call('ZADD', READY, stamp(now), id)
end

function operations.refill() refill() end

-- Bring back what is neither in Celery's list, nor with a worker, nor at its end. A message on its way from the one to the
-- other is in neither for a moment, so only what is missed twice counts. One that is noted as being with a worker may be
-- with none: Redis went away after it wrote the note and before it said so.
function operations.reconcile(expires, pause)
    if pause ~= '' and not redis.call('SET', key('reconciled'), '', 'NX', 'PX', pause) then return {} end
    forget_datasets()
    local list
    local function patience(id, set)
        list = list or redis.call('LRANGE', QUEUE, 0, -1)
        local tag = '"delivery_tag": "' .. id .. '"'  -- as Python writes it; within a text its quotes have backslashes
        for _, message in ipairs(list) do
            if string.find(message, tag, 1, true) then return math.huge end
        end
        if redis.call('HEXISTS', UNACKED, id) == 0 then return GRACE_SECONDS end
        return set == READY and HELD_SECONDS or math.huge
    end
    local brought_back = {}
    for set, age in pairs({[READY] = GRACE_SECONDS, [STARTED] = RUN_SECONDS}) do
        for _, id in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', stamp(now - age))) do
            local missing, wait = tonumber(redis.call('HGET', task(id), 'missing')), patience(id, set)
            if redis.call('HEXISTS', task(id), 'message') == 0 or has_ended(id) then
                close(id, expires)  -- a worker without a ledger has stored its result
                redis.call('DEL', task(id))
            elseif wait == math.huge then
                redis.call('HDEL', task(id), 'missing')
            elseif not missing then
                redis.call('HSET', task(id), 'missing', stamp(now))
            elseif now - missing >= wait then
                if set == STARTED then redis.call('ZADD', WAITING, stamp(now), id) end
                redis.call('ZREM', STARTED, id)
                redis.call('HDEL', task(id), 'missing')
                hand_over(id)
                brought_back[#brought_back + 1] = id
            end
        end
    end
    refill()
    return brought_back
end

function operations.requeue(id, queued, keep_seconds)
    local data = redis.call('HMGET', task(id), 'dataset')[1]
    if data and redis.call('ZSCORE', DEAD, id) and not hold(data, id, tonumber(keep_seconds)) then return 'dataset' end
    if redis.call('ZREM', DEAD, id) == 0 or redis.call('EXISTS', task(id)) == 0 then return 'unknown' end
    local tenant, bytes = unpack(redis.call('HMGET', task(id), 'tenant', 'bytes'))
    redis.call('HDEL', task(id), 'reason', 'cancelled')
    redis.call('PERSIST', task(id))
    redis.call('PERSIST', key('key', id))
    redis.call('HSET', task(id), 'submitted', stamp(now))
    redis.call('ZADD', WAITING, stamp(now), id)
    count_in(tenant, bytes)
    publish(id, queued)
    line_up(id)
    refill()
    return 'queued'
end

function operations.drop(id)
    if redis.call('ZREM', DEAD, id) == 0 then return 0 end
    redis.call('DEL', task(id))
    return 1
end

return operations[ARGV[1]](unpack(ARGV, 2))
