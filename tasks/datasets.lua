-- Data that many submissions share: stored once, under the hash of its text, until its time is over and no submission
-- that has not ended refers to it. Called by tasks/datasets.py; the ledger holds, keeps and lets go.

-- When the time of each is over; the bytes of each, and of all. What has expired is in both until a worker looks.
local DATASETS, DATASET_BYTES, ALL = key('datasets'), key('dataset-bytes'), 'all'
-- To one whose time is over, and that somebody refers to, a worker comes back after so long.
local LOOK_AGAIN_SECONDS = 60
-- Of those who refer to it, so many are looked at each time.
local LOOK_AT = 10
-- What Redis needs for each besides its text: a tiny one was measured with 555 bytes in all.
local OVERHEAD_BYTES = 512

local function dataset(digest) return key('dataset', digest) end
local function references(digest) return key('references', digest) end

local function is_stored(digest) return redis.call('EXISTS', dataset(digest)) == 1 end

-- Redis itself removes it at the end of its time, unless somebody refers to it.
local function set_end(digest)
    if redis.call('SCARD', references(digest)) > 0 then
        redis.call('PERSIST', dataset(digest))
    else
        local time = tonumber(redis.call('ZSCORE', DATASETS, digest)) or now
        redis.call('EXPIREAT', dataset(digest), string.format('%.0f', math.ceil(time)))
    end
end

-- Keep it for so long from now, at least. False when it is not there.
local function keep(digest, seconds)
    if not is_stored(digest) then return false end
    redis.call('ZADD', DATASETS, 'GT', stamp(now + seconds), digest)
    set_end(digest)
    return true
end

-- As long as this submission has not ended, too.
local function hold(digest, id, seconds)
    if is_stored(digest) then redis.call('SADD', references(digest), id) end
    return keep(digest, seconds)
end

local function let_go(digest, id)
    redis.call('SREM', references(digest), id)
    set_end(digest)
end

local function count_bytes(digest, bytes)
    local before = tonumber(redis.call('HGET', DATASET_BYTES, digest)) or 0
    if bytes > 0 then redis.call('HSET', DATASET_BYTES, digest, bytes) else redis.call('HDEL', DATASET_BYTES, digest) end
    if redis.call('HINCRBY', DATASET_BYTES, ALL, bytes - before) <= 0 then redis.call('HDEL', DATASET_BYTES, ALL) end
end

-- A worker's: producers cannot list what there is. Whose record was removed by hand does not let go by itself.
local function forget_datasets()
    for _, digest in ipairs(redis.call('ZRANGEBYSCORE', DATASETS, '-inf', stamp(now), 'LIMIT', 0, 100)) do
        for _, id in ipairs(redis.call('SRANDMEMBER', references(digest), LOOK_AT)) do
            if redis.call('EXISTS', task(id)) == 0 then redis.call('SREM', references(digest), id) end
        end
        if redis.call('SCARD', references(digest)) > 0 then
            redis.call('ZADD', DATASETS, stamp(now + LOOK_AGAIN_SECONDS), digest)
        else
            redis.call('DEL', dataset(digest))
            redis.call('ZREM', DATASETS, digest)
            count_bytes(digest, 0)
        end
    end
end

-- A producer's, before it sends the text.
function operations.keep_dataset(digest, seconds) return keep(digest, tonumber(seconds)) and 1 or 0 end

function operations.put_dataset(digest, text, seconds, most_bytes)
    if keep(digest, tonumber(seconds)) then return 'known' end
    if #text > tonumber(most_bytes) then return 'never' end
    local sizes = redis.call('HMGET', DATASET_BYTES, ALL, digest)
    -- One that has expired, or was removed by hand, may still be counted.
    if (tonumber(sizes[1]) or 0) - (tonumber(sizes[2]) or 0) + #text > tonumber(most_bytes) then return 'full' end
    if memory_is_short(#text, DATASET_SHARE) then return 'memory' end
    redis.call('SET', dataset(digest), text)
    count_bytes(digest, #text + OVERHEAD_BYTES)
    keep(digest, tonumber(seconds))
    return 'stored'
end
