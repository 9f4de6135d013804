"""Where attacks happen: an executor with the code policy off, and what must be true after each of them."""

from __future__ import annotations

import contextlib
import itertools
import math
import textwrap
import time
from typing import TYPE_CHECKING, Any

from tasks import ExecutionRequest
from worker import CodeExecutor
from worker.sandbox.owner import OWNER_LABEL, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker

    from tasks import ExecutionResult
    from worker import SandboxConfig
    from worker.sandbox.pool import Acquired

#: Sandboxes kept ready: the next ones start while an attack runs.
WARM = 3

#: What every attack may use. `answer()` and `syscall()` say how a call of C ended: 'done' or the error's name.
PRELUDE = """
import ctypes, errno, json, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def answer(function, *arguments):
    ctypes.set_errno(0)
    done = function(*arguments)
    return errno.errorcode.get(ctypes.get_errno(), 'E?') if done == -1 else 'done'
def syscall(*arguments):
    return answer(libc.syscall, *map(ctypes.c_long, arguments))
def refusal(function, *arguments):
    try:
        function(*arguments)
    except OSError as exc:
        return errno.errorcode[exc.errno]
    return 'done'
"""

HONEST = """
import json
import numpy as np
import pandas as pd

with open('/workspace/data.json') as f:
    close = pd.Series(json.load(f)['close'], dtype=float)
answer = {'mean': close.rolling(5).mean().iloc[-1], 'norm': np.linalg.norm(close), 'rank': close.rank().iloc[0]}
print(json.dumps({name: float(value) for name, value in answer.items()}))
"""


class Arena:
    """Runs attacks under one runtime and remembers which containers they had.

    Args:
        config: how sandboxes are made.
        client: the engine, asked directly.
        tenant: whose strategies they all are, where they may share a sandbox.
    """

    def __init__(self, config: SandboxConfig, client: docker.DockerClient, tenant: str = "") -> None:
        self.config = config
        self.client = client
        self.tenant = tenant
        self.executor = CodeExecutor(config, validator=None, warm=WARM)
        self._numbers = itertools.count(1)
        self._used: list[str] = []
        self._remember_used()

    @property
    def gvisor(self) -> bool:
        """Whether the kernel that attacks meet is gVisor's."""
        return self.config.gvisor

    def _remember_used(self) -> None:
        """Note the container of every run as it is given up: a result does not name it."""
        pool = self.executor._pool
        release = pool.release

        def noting(acquired: Acquired, *, clean: bool) -> None:
            self._used.append(acquired.sandbox.container_id)
            release(acquired, clean=clean)

        pool.release = noting  # type: ignore[method-assign]

    @property
    def last_container(self) -> str:
        """The container of the run that ended last."""
        return self._used[-1]

    @contextlib.contextmanager
    def one_container(self) -> Iterator[None]:
        """Whatever runs within runs in one container, after one another."""
        before = len(self._used)
        yield
        used = self._used[before:]
        assert len(used) > 1
        assert len(set(used)) == 1, "another container took its place"

    def attack(
        self, code: str, *, data: Any = None, timeout: float = 20.0, tenant: str | None = None
    ) -> ExecutionResult:
        """Run one hostile strategy, `PRELUDE` before it."""
        source = PRELUDE + textwrap.dedent(code)
        user_id = self.tenant if tenant is None else tenant
        return self.executor.execute(ExecutionRequest.build(source, data, timeout=timeout, user_id=user_id))

    def probe(self, code: str, **options: Any) -> Any:
        """Run code that must succeed, and return the JSON that it printed."""
        result = self.attack(code, **options)
        assert result.success, (result.error, result.stderr)
        return result.json()

    def own_containers(self) -> list[dict[str, Any]]:
        """Return what the engine says of each container of this arena that waits or runs."""
        ids = [
            found["Id"] for found in self.client.api.containers(filters={"label": f"{OWNER_LABEL}={Owner.current()}"})
        ]
        return [self.client.api.inspect_container(found) for found in ids]

    def assert_unharmed(self) -> None:
        """An honest strategy gets its right numbers, and every container that was used is gone."""
        self.run_honest()
        self.assert_gone()

    def assert_gone(self) -> None:
        """Every container that was used since the last look is gone."""
        used, self._used = set(self._used), []
        deadline = time.monotonic() + 15  # a container full of stopped processes can take the engine some seconds
        while left := used & {found["Id"] for found in self.client.api.containers(all=True)}:
            assert time.monotonic() < deadline, f"containers left: {left}"
            time.sleep(0.05)

    def run_honest(self) -> None:
        """Run a strategy whose numbers are known, on data of its own each time."""
        number = next(self._numbers)
        close = [100.0 + (day * 7919 % 13) + number for day in range(40)]
        result = self.executor.execute(ExecutionRequest.build(HONEST, {"close": [*close]}, user_id=self.tenant))
        assert result.success, (result.error, result.stderr)
        smaller, equal = sum(price < close[0] for price in close), close.count(close[0])
        expected = {
            "mean": math.fsum(close[-5:]) / 5,
            "norm": math.sqrt(math.fsum(price * price for price in close)),
            "rank": smaller + (equal + 1) / 2,
        }
        assert result.stderr == ""
        answer = result.json()
        assert answer.keys() == expected.keys()
        assert all(math.isclose(answer[name], expected[name]) for name in expected), (answer, expected)
