"""Descriptors: what is inherited, the sealed data file, forged frames, and a strategy without any."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tasks import ExecutionStatus

if TYPE_CHECKING:
    from tests.security.arena import Arena

INHERITED = """
    import fcntl
    print(json.dumps([fd for fd in range(1024) if refusal(fcntl.fcntl, fd, fcntl.F_GETFD) == 'done']))
"""

#: Runs out of them, then tries to raise the limit.
EXHAUST = """
    import resource
    opened = [0, 1, 2, 3]
    try:
        while len(opened) < 5000: opened.append(os.dup(3))
    except OSError as exc:
        error = errno.errorcode[exc.errno]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        raised = 'raised'
    except (OSError, ValueError):
        raised = 'refused'
    print(json.dumps([len(opened), error, raised]))
"""

SEALED = """
    import fcntl, mmap
    path = '/workspace/data.json'
    before = open(path, 'rb').read()
    attempts = {
        'write': refusal(os.write, 3, b'forged'),
        'pwrite': refusal(os.pwrite, 3, b'forged', 0),
        'truncate': refusal(os.truncate, 3, 0),
        'write, opened anew': refusal(lambda: os.write(os.open(path, os.O_WRONLY), b'forged')),
        'unlink': refusal(os.unlink, path),
        'map': refusal(lambda: mmap.mmap(3, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)),
        'more seals': refusal(fcntl.fcntl, 3, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    }
    print(json.dumps([attempts, before == open(path, 'rb').read()]))
"""

#: A report of success, one of other numbers, output and a greeting, to every descriptor there may be.
FORGED = """
    def frame(kind, message):
        return bytes([kind]) + len(message).to_bytes(4, 'big') + message
    report = {'exit_code': 0, 'signal': None, 'timed_out': False, 'oom_kills': 0, 'truncated': False,
              'wall_seconds': 0.0, 'cpu_seconds': 0.0, 'peak_memory_bytes': 0, 'explanation': ''}
    forged = frame(19, json.dumps(report).encode()) + frame(16, b'{"protocol":1}') + frame(17, b'forged')
    engine = b'\\1\\0\\0\\0' + len(forged).to_bytes(4, 'big') + forged  # with the engine's own framing around it
    for fd in range(256):
        for lie in (forged, engine):
            refusal(os.write, fd, lie)
    for path in ('/proc/1/fd/1', '/proc/1/fd/0', '/dev/console', '/dev/tty', '/dev/stdout'):
        try:
            with open(path, 'wb') as file: file.write(forged)
        except OSError:
            pass
    os._exit(7)
"""

#: The page that the runner shares with its child, filled with what it would like to have happened.
SCRIBBLED = """
    import sys
    frame = sys._getframe()
    while 'explanation' not in frame.f_locals: frame = frame.f_back
    page = frame.f_locals['explanation']
    page[:] = (FILLING * len(page))[:len(page)]
    os._exit(7)
"""


@pytest.mark.threat("using what the runner has open", control="the child closes all but 0 to 3")
def test_no_descriptor_is_inherited(arena: Arena) -> None:
    """Standard streams and the data file, no other."""
    assert arena.probe(INHERITED) == [0, 1, 2, 3]


@pytest.mark.threat("descriptor exhaustion", control="nofile 256, hard")
def test_exhaustion_stops_at_256(arena: Arena) -> None:
    """256 descriptors and no more, and the limit cannot be raised."""
    assert arena.probe(EXHAUST) == [256, "EMFILE", "refused"]


@pytest.mark.threat("a changed data file", control="memfd, sealed")
def test_the_data_file_is_sealed(arena: Arena) -> None:
    """It cannot be written, mapped for writing, cut or removed, and its seals are final."""
    attempts, same = arena.probe(SEALED, data={"price": [1, 2, 3]})
    assert "done" not in attempts.values(), attempts
    assert same


@pytest.mark.threat(
    "forged frames on every descriptor",
    control="the control channel is out of the child's reach",
    differs="`/proc/1/fd` is open: forging there ends as `crashed`",
)
def test_forged_frames_are_output(arena: Arena) -> None:
    """They come back as the output they are; the verdict is the runner's: exit code 7."""
    result = arena.attack(FORGED)
    if arena.gvisor:
        assert result.status is ExecutionStatus.CRASHED, result
        assert "what no runner sends" in str(result.error)
        return
    assert result.status is ExecutionStatus.FAILED
    assert result.exit_code == 7
    assert min(result.output.count("forged"), result.stderr.count("forged")) >= 2
    assert result.metrics.wall_seconds > 0


@pytest.mark.threat("a forged account of an exception", control="strict types; without a sound one, the exit code")
@pytest.mark.parametrize("filling", [b"\xff", b"[", b'{"type":1}', b'"\\u0000'])
def test_scribbled_explanation_is_an_exit_code(arena: Arena, filling: bytes) -> None:
    """What is not a sound account of an exception is ignored."""
    result = arena.attack(SCRIBBLED.replace("FILLING", repr(filling)))
    assert result.status is ExecutionStatus.FAILED
    assert result.error is not None
    assert result.error.type == "NonZeroExit"
    assert re.search(r"exit code 7", result.error.message)


@pytest.mark.threat("closing or replacing descriptors 0 to 3", control="the verdict does not pass through them")
@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("print('begun')\nos.closerange(0, 256)", "begun\n"),
        ("print('begun')\nos.dup2(2, 1)\nos.dup2(1, 3)\nprint('lost')", "begun\n"),
        ("print('begun')\nr, w = os.pipe()\nfor fd in range(4): os.dup2(w, fd)\nos.write(3, b'own')", "begun\n"),
    ],
    ids=["close all", "swap", "dup over the data file"],
)
def test_games_with_descriptors_end_well(arena: Arena, code: str, output: str) -> None:
    """The strategy takes only its own streams away; the run ends as it ends."""
    result = arena.attack(code)
    assert result.success, result
    assert result.output == output
