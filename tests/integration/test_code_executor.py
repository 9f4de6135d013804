"""The executor, each test in a real container."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tasks import ExecutionRequest, ExecutionStatus
from tasks.errors import InvalidRequest
from worker import CodeExecutor, SandboxConfig, execute_strategy
from worker.errors import EngineUnavailable, ImageMissing, SandboxLost
from worker.sandbox.container import Sandbox
from worker.sandbox.owner import OWNER_LABEL, Owner

if TYPE_CHECKING:
    import docker
    from pydantic import JsonValue

RSI = """
import json
import numpy as np
import pandas as pd

with open('/workspace/data.json') as f:
    close = pd.Series(json.load(f)['close'], dtype=float)
change = close.diff()
gain = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
loss = -change.clip(upper=0).ewm(alpha=1 / 14, adjust=False).mean()
rsi = 100 - 100 / (1 + gain / loss.replace(0, np.nan))
print(json.dumps({'bars': len(close), 'last': round(float(rsi.iloc[-1]), 6)}))
"""


def wilder_rsi(closes: list[float]) -> float:
    """Compute the same figure without pandas, as the independent check of what came back."""
    gain = loss = None
    for before, after in itertools.pairwise(closes):
        up, down = max(after - before, 0.0), max(before - after, 0.0)
        gain = up if gain is None else gain + (up - gain) / 14
        loss = down if loss is None else loss + (down - loss) / 14
    assert gain is not None
    assert loss is not None
    return 100 - 100 / (1 + gain / loss)


def own_sandboxes(client: docker.DockerClient) -> set[str]:
    """Return the ids of the containers this very process owns."""
    label = f"{OWNER_LABEL}={Owner.current()}"
    return {found["Id"] for found in client.api.containers(all=True, filters={"label": label})}


@pytest.fixture
def settled(executor: CodeExecutor, bare_executor: CodeExecutor) -> None:
    """The module's executors start nothing while the test looks at what is new."""
    for each in (executor, bare_executor):
        each.warm()  # what a run has used up would be replaced a moment later
        each.wait_until_warm()


async def test_basic_execution(executor: CodeExecutor) -> None:
    """A strategy with numpy and pandas runs and its numbers are right."""
    closes: list[JsonValue] = [100 + (i * 7919 % 13) - 6 + i / 10 for i in range(250)]
    result = await executor.execute_strategy(code=RSI, data={"close": closes}, timeout=30)
    assert result.success, result.error
    assert result.status is ExecutionStatus.SUCCEEDED
    assert result.error is None
    assert result.exit_code == 0
    answer = result.json()
    assert answer["bars"] == 250
    assert answer["last"] == pytest.approx(wilder_rsi([float(str(c)) for c in closes]), abs=1e-5)


@pytest.mark.parametrize(
    "data",
    [
        {"price": 100},
        [1, 2.5, None, True, "text"],
        "é 漢 😀 \u2028 \\ \" '",
        None,
        {"deep": {"er": [{"est": 1e-300}]}, "": 0, "big": 2**60},
        {"blob": "x" * (15 * 1024 * 1024)},
    ],
    ids=["object", "array", "text", "null", "nested", "15 MiB"],
)
def test_data_input_output(executor: CodeExecutor, data: object) -> None:
    """What goes in as data is what the strategy reads, and it can read it twice but not write it."""
    code = """
        import json
        first = json.load(open('/workspace/data.json', encoding='utf-8'))
        with open('/workspace/data.json', encoding='utf-8') as f:
            again = json.load(f)
        text = json.dumps(first)
        print(json.dumps({'same': first == again, 'data': first if len(text) < 1000 else len(text)}))
    """
    result = executor.execute(ExecutionRequest.parse({"code": textwrap.dedent(code), "data": data}))
    assert result.success, result.error
    text = json.dumps(data)
    assert result.json() == {"same": True, "data": data if len(text) < 1000 else len(text)}


def test_timeout_enforcement(executor: CodeExecutor) -> None:
    """An endless loop ends at its deadline, and what it printed survives."""
    started = time.monotonic()
    result = executor.execute(ExecutionRequest(code="print('begun')\nwhile True:\n    pass", timeout=1.5))
    assert result.status is ExecutionStatus.TIMED_OUT
    assert not result.success
    assert result.output == "begun\n"
    assert "1.5 s" in str(result.error)
    assert 1.5 <= result.metrics.wall_seconds < 2.5
    assert time.monotonic() - started < 10


def test_network_isolation(bare_executor: CodeExecutor) -> None:
    """With the code policy off: only loopback exists, nothing resolves, nothing connects."""
    code = """
        import socket
        print([line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]])
        for attempt in (
            lambda: socket.create_connection(('10.0.0.1', 80), timeout=2),
            lambda: socket.getaddrinfo('example.invalid', 80),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('169.254.169.254', 80)),
        ):
            try:
                attempt()
                print('OPEN')
            except OSError:
                print('closed')
    """
    result = bare_executor.execute(ExecutionRequest(code=textwrap.dedent(code)))
    assert result.success, result.error
    assert result.output.splitlines() == ["['lo']", "closed", "closed", "closed"]


def test_filesystem_readonly(bare_executor: CodeExecutor) -> None:
    """With the code policy off: no folder of the whole tree takes a file, and the data is sealed."""
    code = """
        import os
        written, tried = [], 0
        for top, folders, _ in os.walk('/'):
            folders[:] = [name for name in folders if os.path.join(top, name) not in ('/proc', '/sys')]
            tried += 1
            try:
                open(os.path.join(top, 'planted'), 'w')
                written.append(top)
            except OSError:
                pass
        for path in ('/workspace/data.json', '/proc/sys/kernel/hostname', '/dev/shm/x', '/dev/mqueue/x'):
            try:
                with open(path, 'r+b') as f:
                    f.write(b'forged')
                written.append(path)
            except OSError:
                pass
        print(tried > 100, written, open('/workspace/data.json').read())
    """
    result = bare_executor.execute(ExecutionRequest(code=textwrap.dedent(code), data=[1, 2]))
    assert result.success, result.error
    assert result.output.strip() == "True [] [1,2]"


def test_process_limits(bare_executor: CodeExecutor) -> None:
    """With the code policy off: a fork bomb stops at 31 processes beside the runner and takes nobody with it."""
    code = """
        import os, time
        born = 0
        try:
            while born < 1000:
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(600)
                born += 1
        except BlockingIOError:
            print(born)
    """
    result = bare_executor.execute(ExecutionRequest(code=textwrap.dedent(code)))
    assert result.success, result.error
    assert int(result.output) == 32 - 2  # the runner and the strategy itself count
    assert result.metrics.wall_seconds < 5, "daemonised grandchildren delay nothing"
    assert bare_executor.execute(ExecutionRequest(code="print(1)")).success


@pytest.mark.parametrize(
    ("code", "on_stdout", "on_stderr"),
    [
        ("print('x' * 3_000_000)", 1 << 20, 0),
        ("import sys\nfor i in range(40_000): print('y' * 99, file=sys.stderr)", 0, 1 << 20),
        ("import sys\nprint('a' * 600_000, end='')\nprint('b' * 600_000, end='', file=sys.stderr)", 600_000, 448_576),
    ],
    ids=["one line", "stderr", "both together"],
)
def test_output_size_limits(bare_executor: CodeExecutor, code: str, on_stdout: int, on_stderr: int) -> None:
    """Output is kept up to 1 MiB, both streams together; the rest is dropped and said so."""
    result = bare_executor.execute(ExecutionRequest(code=code))
    assert result.success, result.error
    assert result.truncated
    assert len(result.output) + len(result.stderr) == 1 << 20
    if (on_stdout, on_stderr) != (600_000, 448_576):  # which stream's bytes come first is the scheduler's choice
        assert (len(result.output), len(result.stderr)) == (on_stdout, on_stderr)


def test_output_under_the_limit_is_whole(bare_executor: CodeExecutor) -> None:
    """A full MiB comes back to the last byte and is not called truncated."""
    result = bare_executor.execute(ExecutionRequest(code="print('x' * ((1 << 20) - 1))"))
    assert result.output == "x" * ((1 << 20) - 1) + "\n"
    assert not result.truncated


@pytest.mark.parametrize(
    ("code", "status", "kind", "line"),
    [
        ("x = 1\n\nprint(x / 0)", "failed", "ZeroDivisionError", 3),
        ("def f():\n    raise KeyError('close')\n\nf()", "failed", "KeyError", 2),
        ("raise SystemExit(3)", "failed", "NonZeroExit", None),
        ("raise SystemExit('no data')", "failed", "SystemExit", 1),
        ("raise SystemExit(0)", "succeeded", None, None),
        ("import os\nos._exit(0)", "succeeded", None, None),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "crashed", "Crashed", None),
        ("import ctypes\nctypes.string_at(0)", "crashed", "Crashed", None),
        ("import sys\nsys.setrecursionlimit(10**9)\nf = lambda: f()\nf()", None, None, None),
        ("hold = [bytearray(1 << 20) for _ in range(400)]", "out_of_memory", "OutOfMemory", None),
        ("def f(:", "failed", "SyntaxError", 1),
        ("import os\nfor fd in range(256):\n    try: os.close(fd)\n    except OSError: pass", "succeeded", None, None),
    ],
)
def test_error_handling(
    bare_executor: CodeExecutor, code: str, status: str | None, kind: str | None, line: int | None
) -> None:
    """Whatever a strategy does ends as a result with a status; the next one is unharmed."""
    result = bare_executor.execute(ExecutionRequest(code=code, timeout=20))
    assert status is None or result.status == status, result
    assert (result.error and result.error.type) == kind or status is None
    assert (result.error and result.error.line) == line or status is None
    assert (result.error is None) == result.success
    assert bare_executor.execute(ExecutionRequest(code="print('unharmed')")).output == "unharmed\n"


def test_traceback_shows_only_the_strategy(bare_executor: CodeExecutor) -> None:
    """The traceback has the strategy's frames with their source lines and none of the runner's or pandas'."""
    code = "import pandas as pd\n\ndef signal(df):\n    return df['missing']\n\nsignal(pd.DataFrame({'a': [1]}))\n"
    error = bare_executor.execute(ExecutionRequest(code=code)).error
    assert error is not None
    assert (error.type, error.line) == ("KeyError", 4)
    assert error.traceback.count("File ") == error.traceback.count('File "strategy.py"') >= 2
    assert "return df['missing']" in error.traceback


@pytest.mark.usefixtures("settled")
async def test_convenience_function(docker_client: docker.DockerClient) -> None:
    """One call, one container, nothing left of it when the call returns."""
    before = own_sandboxes(docker_client)
    result = await execute_strategy(code="import json\nprint(json.load(open('/workspace/data.json')))", data=[7])
    assert result.success, result.error
    assert result.output == "[7]\n"
    assert not result.metrics.warm
    assert own_sandboxes(docker_client) <= before


def test_performance_metrics(executor: CodeExecutor) -> None:
    """The metrics are what the run really took, and a waiting sandbox makes the start-up vanish."""
    code = """
        import time
        import numpy as np
        block = np.ones(100 * 1024 * 1024 // 8)
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        time.sleep(0.2)
    """
    executor.warm()
    executor.wait_until_warm()
    metrics = executor.execute(ExecutionRequest(code=textwrap.dedent(code))).metrics
    assert metrics.warm
    assert metrics.startup_seconds <= 0.05
    assert 0.3 <= metrics.cpu_seconds < 1.0
    assert metrics.wall_seconds >= 0.7, "0.3 s of CPU at half a core, and the sleep"
    assert metrics.wall_seconds < metrics.total_seconds < metrics.wall_seconds + 5
    assert 140 * 2**20 < metrics.peak_memory_bytes < 256 * 2**20
    assert metrics.queue_seconds == 0


def test_policy_refuses_before_a_container_is_spent(executor: CodeExecutor) -> None:
    """Refused code never gets a sandbox, and every violation says where, why and what instead."""
    result = executor.execute(ExecutionRequest(code="import os\neval('1')\n().__class__"))
    assert result.status is ExecutionStatus.REJECTED
    assert [violation.line for violation in result.violations] == [1, 2, 3]
    assert all(violation.rule and violation.hint for violation in result.violations)
    assert result.metrics.startup_seconds == 0


@pytest.mark.usefixtures("settled")
def test_interrupted_wait_leaves_no_sandbox(docker_client: docker.DockerClient) -> None:
    """Whoever is interrupted while waiting for a sandbox, by a time limit or Ctrl-C, leaves none behind."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    already = own_sandboxes(docker_client)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with CodeExecutor() as executor:
            executor.warm()
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                executor.execute(ExecutionRequest(code="print(1)"))
    finally:
        signal.signal(signal.SIGALRM, before)
    deadline = time.monotonic() + 5
    while not own_sandboxes(docker_client) <= already:
        assert time.monotonic() < deadline, "the sandbox nobody claimed is still there"
        time.sleep(0.1)


def test_seed_repeats_and_its_absence_does_not(bare_executor: CodeExecutor) -> None:
    """The same seed gives the same draws in another container; without one, a fork's inherited state is not reused."""
    code = "import random, numpy as np\nprint(random.random(), np.random.random(), hash('stratbox'))"

    def draw(seed: int | None) -> list[str]:
        return bare_executor.execute(ExecutionRequest(code=code, seed=seed)).output.split()

    assert draw(7) == draw(7)
    (first, second, hashed), (third, fourth, hashed_again) = draw(None), draw(None)
    assert first != third
    assert second != fourth
    assert hashed == hashed_again


async def test_cancelling_the_await_ends_the_sandbox(executor: CodeExecutor) -> None:
    """Cancelling the awaiting task returns soon, and the executor goes on."""
    running = asyncio.create_task(executor.execute_strategy(code="while True:\n    pass", timeout=60))
    await asyncio.sleep(1.5)
    started = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert time.monotonic() - started < 5
    assert (await executor.execute_strategy(code="print(1)")).success


@pytest.mark.usefixtures("settled")
def test_dead_warm_sandbox_is_replaced(docker_client: docker.DockerClient) -> None:
    """A warm container that somebody killed is skipped, and the strategy runs in the next."""
    with CodeExecutor() as executor:
        before = own_sandboxes(docker_client)
        executor.warm()
        executor.wait_until_warm()
        (warm,) = own_sandboxes(docker_client) - before
        docker_client.containers.get(warm).kill()
        time.sleep(0.5)
        assert executor.execute(ExecutionRequest(code="print('here')")).output == "here\n"


@pytest.mark.usefixtures("settled")
async def test_sandbox_killed_mid_run_is_crashed(docker_client: docker.DockerClient) -> None:
    """A container killed from outside while its strategy runs ends as crashed, partial output kept."""
    before = own_sandboxes(docker_client)
    with CodeExecutor(warm=1, validator=None) as executor:
        await asyncio.to_thread(executor.wait_until_warm)
        (sandbox,) = own_sandboxes(docker_client) - before
        code = "import time\nprint('begun')\ntime.sleep(30)"
        running = asyncio.create_task(executor.execute_strategy(code=code))
        await asyncio.sleep(2)
        docker_client.containers.get(sandbox).kill()
        result = await running
    assert result.status is ExecutionStatus.CRASHED
    assert result.output == "begun\n"
    assert result.exit_code == 137


@pytest.mark.usefixtures("settled")
def test_broken_connection_is_not_the_strategys_fault() -> None:
    """When the stream to a living sandbox breaks, the run raises, to be tried again: it is not called crashed."""
    sandbox = Sandbox(SandboxConfig())
    try:
        breaking = threading.Timer(1.0, sandbox._stream.hang_up)
        breaking.start()
        with pytest.raises(SandboxLost):
            sandbox.run("import time\ntime.sleep(30)", b"{}", timeout_seconds=20)
        breaking.join()
    finally:
        sandbox.destroy()


def test_result_survives_the_end_of_the_main_thread() -> None:
    """A strategy that ends while the interpreter is on its way out still gives its result to the thread that waits."""
    program = """
        import threading
        from tasks import ExecutionRequest
        from worker import CodeExecutor
        executor = CodeExecutor()
        executor.warm()
        executor.wait_until_warm()
        request = ExecutionRequest(code="import time; time.sleep(1.5); print('in time')")
        threading.Thread(target=lambda: print(executor.execute(request).output, end='')).start()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("in time\n", "", 0)


def test_missing_image_says_what_to_do() -> None:
    """No image: one clear line."""
    config = SandboxConfig(image="stratbox/no-such-image:0")
    with CodeExecutor(config, warm=0) as executor, pytest.raises(ImageMissing, match="make setup"):
        executor.execute(ExecutionRequest(code="print(1)"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_missing_engine_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine: one clear line."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with CodeExecutor(warm=0) as executor, pytest.raises(EngineUnavailable, match="make setup"):
        executor.execute(ExecutionRequest(code="print(1)"))
    gc.collect()  # docker-py leaves a socket that could not connect to the collector, which warns of it here


async def test_wrong_arguments_are_refused_at_the_door(executor: CodeExecutor) -> None:
    """A request over its ceilings raises at once and names the field."""
    with pytest.raises(InvalidRequest, match="timeout"):
        await executor.execute_strategy(code="print(1)", timeout=61)
    with pytest.raises(InvalidRequest, match="data"):
        await executor.execute_strategy(code="print(1)", data=[float("nan")])


def test_operator_ceiling_is_a_ceiling() -> None:
    """A request for more than this worker allows is rejected, for less it is granted."""
    limits = SandboxConfig().limits.model_copy(update={"timeout_seconds": 2.0})
    with CodeExecutor(SandboxConfig(limits=limits), warm=0) as executor:
        over = executor.execute(ExecutionRequest(code="print(1)", timeout=3))
        assert over.status is ExecutionStatus.REJECTED
        assert "2 s" in str(over.error)
        assert executor.execute(ExecutionRequest(code="while True:\n    pass")).status is ExecutionStatus.TIMED_OUT
