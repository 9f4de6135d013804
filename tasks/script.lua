-- The head of the one script that tasks/script.py loads: what data sets (datasets.lua) and ledger (ledger.lua) have in
-- common. Each operation is one step for everybody else who talks to Redis, and goes by Redis' clock.

local PREFIX, RESULT, QUEUE, UNACKED = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

-- How much of Redis' memory may be in use when something new is taken in. Data sets leave room for submissions, which
-- leave some to workers: what was accepted is to be delivered, too.
local DATASET_SHARE, SUBMISSION_SHARE = 0.5, 0.9

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6

local function key(name, id) return PREFIX .. name .. (id and ':' .. id or '') end
local function task(id) return key('task', id) end
local function stamp(seconds) return string.format('%.3f', seconds) end

-- Whether there is no room for so many bytes more within this share of the memory.
local function memory_is_short(bytes, share)
    local memory = redis.call('INFO', 'memory')
    local limit = tonumber(string.match(memory, 'maxmemory:(%d+)'))
    return limit > 0 and tonumber(string.match(memory, 'used_memory:(%d+)')) + bytes > limit * share
end

local operations = {}
