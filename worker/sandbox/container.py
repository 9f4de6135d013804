"""One sandbox: a container from create to destroy. The only module of the execution path that speaks Docker."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import time
import uuid
from typing import TYPE_CHECKING

import docker
import docker.errors
import requests.exceptions
from pydantic import ValidationError

from worker.errors import EngineUnavailable, ImageMissing, SandboxLost, SandboxStartError
from worker.sandbox.ending import VIOLATIONS, Ending, How, Report
from worker.sandbox.frames import PROTOCOL, Frame, FrameError, encode, split
from worker.sandbox.owner import Owner
from worker.sandbox.stream import AttachedStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker.sandbox.config import SandboxConfig

__all__ = ["Ending", "How", "Report", "Sandbox", "connect"]

logger = logging.getLogger(__name__)

#: The runner ends a strategy at its deadline; this much later the worker stops believing that it will, seconds.
DEADLINE_GRACE_SECONDS = 2.0
#: A runner with nothing more to do leaves by itself, and its container with it: cheaper than to have the engine kill
#: it, which it is told to do after so long, seconds.
LEAVE_SECONDS = 5
#: How long the engine may take to say why a container went away, seconds.
POST_MORTEM_SECONDS = 3
ENGINE_TIMEOUT_SECONDS = 30
#: How often to ask the engine what it speaks: it may be exchanged for another one.
ASK_SECONDS = 60
#: With this exit code a runner leaves when its end of input comes before its report, or when the process that stood by
#: ended before it had a strategy: nothing the strategy did.
RUNNER_LEFT = 0
#: The exit code of a process that was ended by SIGKILL.
KILLED = 128 + signal.SIGKILL


def connect() -> docker.APIClient:
    """Return a client of the engine that `DOCKER_HOST` or the CLI context names; the caller closes it.

    docker-py's client is neither fork-safe nor thread-safe: each sandbox has its own.

    Raises:
        EngineUnavailable: nobody answers there; noticed here when the engine is asked for its version.
    """
    try:
        return docker.from_env(
            version=_api_version(int(time.monotonic() // ASK_SECONDS)), timeout=ENGINE_TIMEOUT_SECONDS
        ).api
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
        raise _unavailable(exc) from exc


@functools.lru_cache(maxsize=1)
def _api_version(_when: int) -> str:
    """Return the version of its API that the engine speaks; to say so, it starts two programs each time."""
    with contextlib.closing(docker.from_env(version="auto", timeout=ENGINE_TIMEOUT_SECONDS)) as client:
        version: str = client.api.api_version
        return version


def _unavailable(exc: Exception) -> EngineUnavailable:
    cause = "permission denied" if "Permission denied" in str(exc) else "no answer"
    where = os.environ.get("DOCKER_HOST", "its default socket")
    return EngineUnavailable(f"no container engine at {where} ({cause}): run `make setup`, or set DOCKER_HOST")


@contextlib.contextmanager
def _engine_errors(image: str) -> Iterator[None]:
    """Turn what docker-py raises into this project's errors."""
    try:
        yield
    except docker.errors.ImageNotFound as exc:
        msg = f"the executor image {image} is not there: run `make setup`, or set STRATBOX_SANDBOX_IMAGE"
        raise ImageMissing(msg) from exc
    except docker.errors.APIError as exc:
        msg = f"the engine refused to start a sandbox: {exc.explanation or exc}".splitlines()[0]
        raise SandboxStartError(msg) from exc
    except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise _unavailable(exc) from exc
    except OSError as exc:
        msg = f"the connection to the sandbox failed: {exc}"
        raise SandboxStartError(msg) from exc


class Sandbox:
    """A started container whose runner has numpy and pandas imported and waits for a strategy."""

    def __init__(self, config: SandboxConfig) -> None:
        """Create and start the container and wait until its runner is ready.

        Raises:
            SandboxError: the engine, the image or the start-up failed; nothing is left behind.
        """
        self._limits = config.limits
        self._interrupted = False
        #: Whether its runner waits for input, of which the end will end it.
        self._listening = False
        self._stream = AttachedStream()
        self._client = connect()
        self.container_id = ""
        #: Of the Python inside, as in "3.13.5".
        self.python_version = ""
        #: How often `run()` was called; when it was ready, and when first used, by `time.monotonic()`.
        self.runs = 0
        self.ready_at = self.first_used = 0.0
        try:
            with _engine_errors(config.image):
                self._start(config)
        except BaseException:
            self.destroy()
            raise

    def _start(self, config: SandboxConfig) -> None:
        deadline = time.monotonic() + config.start_timeout_seconds
        client = self._client
        spec = config.container_spec(owner=str(Owner.current()))
        name = f"stratbox-{uuid.uuid4().hex[:12]}"
        self.container_id = client.create_container_from_config(spec, name)["Id"]
        # Attached before the start: nothing the runner says can be missed.
        params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        self._stream.attach(client.attach_socket(self.container_id, params=params))
        client.start(self.container_id)
        self._expect_ready(deadline)

    def _expect_ready(self, deadline: float) -> None:
        try:
            kind, payload = next(self._stream.frames(deadline), (None, b""))
            ready = json.loads(payload) if kind is Frame.READY else {}
        except TimeoutError as exc:
            msg = "the sandbox was not ready in time: is the host overloaded? (STRATBOX_SANDBOX_START_TIMEOUT_SECONDS)"
            raise SandboxStartError(msg) from exc
        except ValueError as exc:
            ready = {"protocol": str(exc)}
        if not ready:
            msg = f"the sandbox ended before it was ready: {self._stream.diagnostics() or 'it said nothing'}"
            raise SandboxStartError(msg)
        if ready.get("protocol") != PROTOCOL:
            msg = (
                f"the executor image speaks protocol {ready.get('protocol')}, this worker {PROTOCOL}: run `make setup`"
            )
            raise ImageMissing(msg)
        self.python_version = str(ready.get("python"))
        self._listening = True

    def alive(self) -> bool:
        """Whether the waiting container is still there; a warm one may have died of its engine's restart."""
        return self._stream.quiet()

    def run(  # noqa: PLR0913  # what there is to say of a run
        self,
        code: str,
        data: bytes,
        timeout_seconds: float,
        seed: int | None = None,
        *,
        check: Mapping[str, list[str]] | None = None,
        last: bool = True,
    ) -> Ending:
        """Run one strategy and return what came out; whatever it does is data.

        Another may follow where the ending is clean, and this was not said to be the last.

        Args:
            code: the source that was validated.
            data: the data file, UTF-8 JSON.
            timeout_seconds: wall clock from the start of the strategy.
            seed: for the global random generators; None for a fresh one.
            check: has the sandbox check the code itself before it runs any of it: its policy and these names, by
                module, beyond it. None leaves it at what the worker has checked.
            last: whether the runner is to leave afterwards.

        Raises:
            SandboxLost: the connection broke, or the container went away and the engine cannot say why.
        """
        ending = Ending()
        header: dict[str, object] = {
            "timeout": timeout_seconds,
            "output_bytes": self._limits.output_bytes,
            "data_bytes": len(data),
            "check": check is not None,
            "last": last,
        }
        options = {"seed": seed, "extra_modules": check or {}}
        started = time.monotonic()
        self.first_used = self.first_used or started
        self.runs += 1
        self._listening = False
        deadline = started + timeout_seconds + DEADLINE_GRACE_SECONDS
        try:
            self._send(header, b"%b\n%b" % (json.dumps(options).encode(), code.encode()), data, deadline)
            self._listen(ending, deadline, checked=check is not None)
        except TimeoutError:
            ending.how = How.OVERDUE
        except (FrameError, ValidationError):
            ending.how = How.BABBLED
        except OSError:
            ending.how = How.VANISHED
        ending.wall_seconds = time.monotonic() - started
        if ending.report is None and self._interrupted:
            ending.how = How.INTERRUPTED
        if ending.how is How.VANISHED:
            ending.exit_code, ending.out_of_memory = self._post_mortem(int(ending.wall_seconds) + 2)
        return ending

    def _send(self, header: dict[str, object], task: bytes, data: bytes, deadline: float) -> None:
        self._stream.send(encode(Frame.RUN, json.dumps(header).encode()) + encode(Frame.CODE, task), deadline)
        for frame in split(Frame.DATA, data):
            self._stream.send(frame, deadline)

    def _listen(self, ending: Ending, deadline: float, *, checked: bool) -> None:
        token = b""
        for kind, payload in self._stream.frames(deadline):
            if kind is Frame.REPORT:
                report = Report.model_validate_json(payload)
                if report.token.encode() != token:
                    msg = "a report by somebody who does not know the token"
                    raise FrameError(msg)
                ending.report = report
                ending.how = How.REPORTED
                self._listening = True
                ending.truncated |= report.truncated
                return
            if kind is Frame.STARTED and not token:
                token = payload
            elif kind is Frame.VIOLATIONS and checked and not token:
                ending.violations = VIOLATIONS.validate_json(payload)
            elif kind in (Frame.STDOUT, Frame.STDERR):
                self._keep(ending, ending.stdout if kind is Frame.STDOUT else ending.stderr, payload)
            else:
                msg = f"unexpected frame {kind!r}"
                raise FrameError(msg)

    def _keep(self, ending: Ending, stream: bytearray, payload: bytes) -> None:
        # The runner keeps to the same budget; a runner that was taken over may not.
        room = self._limits.output_bytes - len(ending.stdout) - len(ending.stderr)
        ending.truncated |= len(payload) > room
        stream.extend(payload[:room])

    def interrupt(self) -> None:
        """Make a running `run()` return at once, from a signal handler or another thread."""
        self._interrupted = True
        self._stream.hang_up()

    def _post_mortem(self, seconds: int) -> tuple[int | None, bool]:
        """Ask the engine how the container ended: its exit code, and whether memory ran out.

        It is asked for events: AutoRemove leaves nothing to inspect. Its notice of a kill for memory may come after the
        removal, and is then dropped; but SIGKILL that the engine was not told to send (it notes that first) is the
        kernel's, for memory. Under gVisor, where PID 1 can be killed, a strategy can feign it: to its own harm only.
        """
        now = int(time.time())
        filters = {"container": self.container_id, "event": ["die", "kill", "oom"]}
        exit_code, out_of_memory, told_to_kill = None, False, False
        try:
            events = self._client.events(now - seconds, now + POST_MORTEM_SECONDS, filters, decode=True)
            with contextlib.closing(events):
                for event in events:
                    out_of_memory |= event["Action"] == "oom"
                    told_to_kill |= event["Action"] == "kill"
                    if event["Action"] == "die":
                        exit_code = int(event["Actor"]["Attributes"]["exitCode"])
                        break
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
            msg = "the container went away and the engine does not answer"
            raise SandboxLost(msg) from exc
        if exit_code in (None, RUNNER_LEFT) and not out_of_memory:
            msg = "the connection to the container broke, its engine was restarted, or its host is short of memory"
            raise SandboxLost(msg)
        return exit_code, out_of_memory or (exit_code == KILLED and not told_to_kill)

    def destroy(self) -> None:
        """End the container and everything in it; what is gone already is fine."""
        self._stream.close()
        if self.container_id:
            try:
                if not (self._listening and self._leaves()):
                    self._client.remove_container(self.container_id, v=True, force=True)
            except docker.errors.NotFound:
                pass
            except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
                # With a conflict, AutoRemove got there first.
                if not (isinstance(exc, docker.errors.APIError) and exc.status_code == requests.codes["conflict"]):
                    logger.debug("could not remove container %s, its end of input will: %s", self.container_id, exc)
        self._client.close()

    def _leaves(self) -> bool:
        """Wait until the container is gone by itself; False when it takes too long."""
        try:
            return not self._client.wait(self.container_id, timeout=LEAVE_SECONDS, condition="removed").get("Error")
        except (requests.exceptions.ConnectionError, requests.exceptions.ReadTimeout):
            return False
