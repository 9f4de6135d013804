"""A kernel that leaves the control channel within a strategy's reach, as gVisor does: who may say how a run ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tasks import ExecutionStatus
from tests.security.arena import Arena
from tests.security.controls import START
from worker import SandboxConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    import docker

#: Before the runner: descriptor 9 is the control channel and the child keeps it. The runner is slow to say that a
#: strategy starts, so that one which did not wait would come first.
LEAK = """
import os, time
os.dup2(1, 9)
closerange, write = os.closerange, os.write
os.closerange = lambda first, last: closerange(10, last)
os.write = lambda fd, data: (time.sleep(0.3 * (fd == 1 and data[0] == 21)), write(fd, data))[1]
"""

#: What a strategy forges with.
FORGER = """
def say(kind, message):
    os.write(9, bytes([kind]) + len(message).to_bytes(4, 'big') + message)
def report(token):
    fields = {'exit_code': 0, 'signal': None, 'timed_out': False, 'oom_kills': 0, 'truncated': False,
              'wall_seconds': 0.0, 'cpu_seconds': 0.0, 'peak_memory_bytes': 0, 'explanation': '', 'token': token}
    say(19, json.dumps(fields).encode())
"""

#: The text of a token's length that the memory of the child still has from before the fork, if there is one.
LEFT_BEHIND = """
import gc
frame, texts = sys._getframe(), set()
def look(values): texts.update(v for v in values if isinstance(v, str) and len(v) == 32 and v.isalnum())
while frame := frame.f_back: look(frame.f_locals.values())
for held in gc.get_objects():
    if type(held) in (dict, tuple, list): look(held.values() if type(held) is dict else held)
report(next(iter(texts), 'nothing'))
"""

FORGERIES = {
    "no token": "report('')",
    "a guess": "report('0' * 32)",
    "a start of its own": "say(21, b'mine')\nreport('mine')",
    "an empty start": "say(21, b'')\nreport('')",
    "a refusal": "say(20, b'[]')\nreport('')",
    "what its memory holds": LEFT_BEHIND,
}


class LeakyConfig(SandboxConfig):
    """Makes sandboxes whose strategy holds the control channel."""

    #: As it is, or without the control under test.
    within: SandboxConfig

    def container_spec(self, owner: str) -> dict[str, Any]:
        """Return the usual body of the "create container" call, with the leak before the runner."""
        spec = self.within.container_spec(owner)
        *_, program = spec.get("Entrypoint", [START])
        return spec | {"Entrypoint": ["/python", "-s", "-P", "-c", LEAK + program]}


@pytest.fixture(scope="module")
def module_den(sandboxes: SandboxConfig, docker_client: docker.DockerClient) -> Iterator[Arena]:
    """One executor for all of this module."""
    den = Arena(LeakyConfig(runtime=sandboxes.runtime, within=sandboxes), docker_client)
    with den.executor:
        den.executor.warm()
        yield den


@pytest.fixture
def den(module_den: Arena) -> Iterator[Arena]:
    """A place where strategies hold the control channel; it serves the honest ones all the same."""
    yield module_den
    module_den.assert_unharmed()


@pytest.mark.threat(
    "forging the verdict where the kernel leaves the control channel open",
    control="a token for each run that the strategy has no copy of; it waits until the worker has it",
)
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_report_is_no_verdict(den: Arena, forgery: str) -> None:
    """The run ends as crashed, whatever the strategy says of itself; an honest one beside it is believed."""
    result = den.attack(FORGER + FORGERIES[forgery])
    assert result.status is ExecutionStatus.CRASHED, result
    assert "what no runner sends" in str(result.error)
