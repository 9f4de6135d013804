"""What every test shares. A missing engine, image or Redis fails a test; it never skips one."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest
from local import private_redis, private_worker

from tasks import Settings, StrategyClient
from worker import CodeExecutor, SandboxConfig
from worker.sandbox.owner import OWNER_LABEL, Owner

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
# Where `ops/setup test` keeps a program that it does not install.
os.environ["PATH"] += f":{ROOT}/.setup/tools/usr/bin"

#: Inherited by every process a test starts, so that the last test can find one that outlived it.
SESSION_VARIABLE = "STRATBOX_TEST_SESSION"


def pytest_configure() -> None:
    """Give this session a folder of its own for temporary files: another may run beside it."""
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="stratbox-tests-")


def pytest_unconfigure() -> None:
    """Remove it."""
    shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the test that looks for leftovers after all others."""
    items.sort(key=lambda item: item.path.name == "test_nothing_left.py")


class Leftovers:
    """What this test session started and has not ended."""

    def __init__(self) -> None:
        self.session = uuid.uuid4().hex
        self._containers_before = self._container_ids()
        self._files_before = self._file_names()

    def wait(self, seconds: float) -> list[str]:
        """Return what is left after up to `seconds` of patience."""
        deadline = time.monotonic() + seconds
        while (left := self._look()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left

    def _look(self) -> list[str]:
        containers = sorted(self._container_ids() - self._containers_before)
        files = sorted(self._file_names() - self._files_before)
        return [*(f"container {name}" for name in containers), *(f"file {name}" for name in files), *self._processes()]

    def _processes(self) -> Iterator[str]:
        for process in Path("/proc").glob("[0-9]*"):
            if int(process.name) != os.getpid() and self._is_ours(process):
                yield f"process {process.name}"

    def _container_ids(self) -> set[str]:
        client = docker.from_env(version="auto")
        try:
            found = client.api.containers(all=True, filters={"label": OWNER_LABEL})
            return {one["Id"] for one in found if not self._is_foreign(one["Labels"][OWNER_LABEL])}
        finally:
            client.close()

    def _is_foreign(self, owner: str) -> bool:
        """Whether a process that lives and is not of this session owns it: a worker beside these tests."""
        try:
            known = Owner.parse(owner)
        except ValueError:
            return True  # a test of the reaper, in a session beside this one
        return not known.gone() and known != Owner.current() and not self._is_ours(Path(f"/proc/{known.pid}"))

    def _is_ours(self, process: Path) -> bool:
        try:
            return f"{SESSION_VARIABLE}={self.session}".encode() in (process / "environ").read_bytes()
        except OSError:
            return False  # it has just ended, or belongs to somebody else

    @staticmethod
    def _file_names() -> set[str]:
        return {str(path) for path in Path(tempfile.gettempdir()).glob("stratbox-*")}


@pytest.fixture(scope="session", autouse=True)
def leftovers() -> Iterator[Leftovers]:
    """Remember what was there before the first test, and scrub the environment of the operator's settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("STRATBOX_")]:
            patch.delenv(name)
        try:
            found = Leftovers()
        except docker.errors.DockerException as exc:
            pytest.fail(f"no container engine answers: run `make setup` ({exc})")
        patch.setenv(SESSION_VARIABLE, found.session)
        yield found


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """The engine, asked directly: what a test asserts does not go through the code it tests."""
    client = docker.from_env(version="auto")
    yield client
    client.close()


@pytest.fixture(scope="session")
def executor_image() -> str:
    """The tag of the executor image."""
    return SandboxConfig().image


@pytest.fixture(scope="module")
def executor() -> Iterator[CodeExecutor]:
    """An executor as users have it, code policy included."""
    with CodeExecutor() as opened:
        yield opened


@pytest.fixture(scope="module")
def bare_executor() -> Iterator[CodeExecutor]:
    """An executor with the code policy off: what holds, the container holds."""
    with CodeExecutor(validator=None, warm=3) as opened:
        yield opened


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A Redis of the module's own."""
    with private_redis() as url:
        yield url


@pytest.fixture(scope="module")
def worker_process(redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker with two pool processes."""
    with private_worker(redis_url) as process:
        yield process


@pytest.fixture
def client(redis_url: str) -> Iterator[StrategyClient]:
    """A producer."""
    with StrategyClient(Settings(redis_url=redis_url)) as opened:
        yield opened
