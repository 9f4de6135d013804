import json
from dataclasses import dataclass


@dataclass
class Order:
    type: str
    size: float


def make_order(type, size=1.0):
    if type not in ("market", "limit"):
        raise ValueError(f"unknown order type: {type!r}")
    return Order(type=type, size=size)


orders = [make_order("market"), make_order(type="limit", size=2)]
try:
    make_order("stop")
except ValueError as error:
    print(f"{type(error).__name__}: {error}")
print(orders)
