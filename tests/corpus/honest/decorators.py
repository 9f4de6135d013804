import functools
import json
import time


def timed(fn):
    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        result = fn(*args, **kwargs)
        wrapper.seconds = time.perf_counter() - start
        return result
    return wrapper


def repeat(times):
    def decorate(fn):
        def inner(*args):
            return [fn(*args) for _ in range(times)][-1]
        return inner
    return decorate


@timed
@repeat(times=3)
def total(values):
    return sum(values)


@functools.lru_cache(maxsize=None)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


print(total([b["close"] for b in json.load(open("/workspace/data.json"))["bars"]]), fibonacci(30))
