"""Events of several classes: an abstract base, enumerations in both forms, type(x) where it only compares."""

import json
from abc import ABCMeta, abstractmethod
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import Enum, Flag, StrEnum, auto
from typing import TypedDict


class Labelled(str, Enum):
    def __str__(self) -> str:
        return self.value


class Side(Labelled):
    BUY = "buy"
    SELL = "sell"


class Mode(Flag):
    LONG = auto()
    SHORT = auto()


class Venue(StrEnum):
    SPOT = auto()


Regime = Enum("Regime", "CALM WILD")


class Horizon(Enum):
    DAY = timedelta(days=1)
    FOREVER: timedelta = timedelta.max


class Stop(Enum):
    TIGHT = float("0.5")


class Bar(TypedDict):
    close: float


class Event(metaclass=ABCMeta):
    @abstractmethod
    def describe(self) -> str: ...


@dataclass
class Fill(Event):
    name: str
    price: float
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name.upper()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self.price == other.price

    def scaled(self, by: float) -> "Fill":
        return type(self)(name=self.name, price=self.price * by)

    def describe(self) -> str:
        return f"{type(self).__name__} {self.name} at {self.price:.2f}"


class Note(Event):
    count = 0

    def __init__(self, name: str) -> None:
        if name:
            self.name = name
        type(self).count += 1

    def describe(self) -> str:
        return self.name


def label(member: Enum) -> str:
    return member.name.lower() if isinstance(member, Enum) else str(member)


def build(cls: type[Event], *values: object) -> Event:
    return cls(*values)


with open("/workspace/data.json") as f:
    bars: list[Bar] = json.load(f)["bars"]

handlers = {Fill: lambda e: e.describe(), Note: lambda e: "note: " + e.describe()}
events = [build(Fill, "btc", bars[0]["close"]), build(Note, "first bar")]
for event in events:
    handler = handlers.get(type(event))
    print(handler(event), type(event) == Fill, type(event) in (Fill, Note), str(type(event))[:6])
print(events[0].scaled(2.0) == events[0], Note.count, [f.name for f in fields(Fill)])
print(Side("buy"), Side.SELL, label(Side.BUY), Mode.LONG | Mode.SHORT, Venue.SPOT, Regime.CALM.name, Horizon.DAY.value, Stop.TIGHT.value)
