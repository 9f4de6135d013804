"""What the chaos suite submits: strategies whose right verdict is known beforehand, in a seeded mix."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks import ExecutionStatus

if TYPE_CHECKING:
    from tasks import ExecutionResult

TENANTS = ("ada", "ben", "cem", "dora", "eve")
#: Kinds of work in per cent. Only `refused` costs no container, and most of `cancelled`.
SHARES = {"sums": 28, "numpy": 10, "sleeps": 20, "raises": 7, "times out": 3, "refused": 25, "cancelled": 7}

_LOAD = "import json\nprices = json.load(open('/workspace/data.json'))['prices']\n"
_SUM = "print(json.dumps(sum(n * p for n, p in enumerate(prices))))\n"
CODES = {
    "sums": _LOAD + _SUM,
    "numpy": _LOAD + "import numpy as np\nprint(int(np.dot(np.arange(len(prices)), np.array(prices))))\n",
    "sleeps": _LOAD + "import time\ntime.sleep(1 + prices[0] % 21 / 10)\n" + _SUM,
    "raises": _LOAD + "raise ValueError('on purpose %d' % sum(n * p for n, p in enumerate(prices)))\n",
    "times out": "import time\ntime.sleep(45)\n",
    "refused": _LOAD + "import os\nos.system('id')\n",
    "cancelled": _LOAD + "import time\ntime.sleep(2)\n" + _SUM,
}


@dataclass(frozen=True)
class Piece:
    """One submission to be: what is asked for, and what must come of it."""

    key: str
    kind: str
    tenant: str
    prices: tuple[int, ...]

    @property
    def answer(self) -> int:
        """What a run of it computes."""
        return sum(n * price for n, price in enumerate(self.prices))

    def request(self) -> dict[str, Any]:
        """Return the arguments of `StrategyClient.submit`."""
        timeout = 1 if self.kind == "times out" else 30
        data = {"prices": list(self.prices)}
        return {"code": CODES[self.kind], "data": data, "timeout": timeout, "user_id": self.tenant, "key": self.key}

    def wrong(self, result: ExecutionResult) -> str:
        """Return what is wrong with a verdict; nothing when it is right."""
        status = result.status
        match self.kind:
            case "raises":
                right = status is ExecutionStatus.FAILED and str(result.error).startswith(
                    f"ValueError: on purpose {self.answer} "
                )
            case "times out":
                right = status is ExecutionStatus.TIMED_OUT
            case "refused":
                right = status is ExecutionStatus.REJECTED and result.violations[0].rule == "R2"
            case "cancelled" if status is ExecutionStatus.CANCELLED:
                right = True
            case _:
                right = status is ExecutionStatus.SUCCEEDED and result.json() == self.answer
        return "" if right else f"{self.key} ({self.kind}): {status.value}, {result.output!r:.80}, {result.error}"


def mix(count: int, seed: int) -> list[Piece]:
    """Return so many pieces."""
    dice = random.Random(seed)
    kinds = dice.choices(list(SHARES), list(SHARES.values()), k=count)
    return [
        Piece(f"{seed}-{number}", kind, dice.choice(TENANTS), tuple(dice.randrange(1, 10**6) for _ in range(200)))
        for number, kind in enumerate(kinds)
    ]
