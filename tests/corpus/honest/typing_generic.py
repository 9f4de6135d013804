from typing import Generic, Iterator, TypeVar, Union
import json

T = TypeVar("T", int, float)
Number = Union[int, float]


class Ring(Generic[T]):
    def __init__(self, size: int) -> None:
        self._items: list[T] = []
        self._size = size

    def push(self, item: T) -> None:
        self._items = [*self._items, item][-self._size:]

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def mean(self) -> Number:
        return sum(self) / max(len(self._items), 1)


ring: Ring[float] = Ring(5)
for bar in json.load(open("/workspace/data.json"))["bars"]:
    ring.push(bar["close"])
print(round(ring.mean(), 4), len(list(ring)))
