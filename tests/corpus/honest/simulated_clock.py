import random
import time
from datetime import date

random.seed(11)
start = time.time()
day = date(2024, 1, 31)
walk = [100.0]
for _ in range(250):
    walk.append(walk[-1] * (1 + random.gauss(0, 0.01)))
time.sleep(0.01)
print(day.isoformat(), round(walk[-1], 4), time.time() - start < 30, random.choice(["a", "b"]) in "ab")
