"""Validate → acquire → run → classify: one request in, one result out."""

from __future__ import annotations

import asyncio
import sys
import time
import weakref
from functools import lru_cache, partial
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Self

from tasks.models import ExecutionMetrics, ExecutionRequest, ExecutionResult
from tasks.policy import DEFAULT_POLICY, Policy
from tasks.refusal import policy_refusal, rejection
from tasks.settings import Settings
from tasks.validator import ASTValidator
from worker import events
from worker.errors import SandboxError
from worker.sandbox.container import Sandbox
from worker.sandbox.pool import SandboxPool
from worker.settings import WorkerSettings
from worker.verdict import classify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from tasks.validator import Violation
    from worker.sandbox.config import SandboxConfig
    from worker.sandbox.pool import Acquired

__all__ = ["Cancellation", "CodeExecutor", "execute_strategy"]

#: Python's grammar changes with its minor version: this is the worker's.
GRAMMAR = f"{sys.version_info.major}.{sys.version_info.minor}"
#: Of so many sources the policy's verdict is remembered; with the longest, 256 KiB each, that is 8 MiB.
CODES_REMEMBERED = 32


class Cancellation:
    """Lets another thread or a signal handler end one execution; without locks, so that a handler cannot deadlock."""

    def __init__(self) -> None:
        self.requested = False
        self._sandbox: Sandbox | None = None

    def cancel(self) -> None:
        """End the execution now, or as soon as it has a sandbox."""
        self.requested = True
        if (sandbox := self._sandbox) is not None:
            sandbox.interrupt()

    def cover(self, sandbox: Sandbox) -> None:
        """Name the sandbox to interrupt; in this order, a cancel on either side of it is seen."""
        self._sandbox = sandbox
        if self.requested:
            sandbox.interrupt()

    def uncover(self) -> None:
        """Let go of the sandbox: a cancel that comes after this does not reach it, one before it shows as requested."""
        self._sandbox = None


class CodeExecutor:
    """Runs strategies, each in a sandbox of its own unless `config` allows more, and keeps the next sandbox warm.

    Close it, or use it as a context manager; at exit of the interpreter it closes itself.

    Args:
        config: how sandboxes are made; by default what the `STRATBOX_*` variables say.
        validator: the code policy, by default what the `STRATBOX_POLICY_*` variables make of it; None lets any code
            through to the sandbox, which is the boundary.
        warm: how many sandboxes to keep ready at least; 0 starts each on demand.
    """

    def __init__(
        self,
        config: SandboxConfig | None = None,
        validator: ASTValidator | EllipsisType | None = ...,
        *,
        warm: int = 1,
    ) -> None:
        self.config = config or WorkerSettings().sandbox_config()
        if isinstance(validator, EllipsisType):
            validator = ASTValidator(Settings().policy())
        #: A sweep, or a strategy that runs each minute, is read once.
        self._validate = lru_cache(CODES_REMEMBERED)(validator.validate) if validator else None
        self._extra_modules = extra_modules(validator.policy) if validator else None
        #: Sources that the sandbox's own check has passed, each with the Python that did.
        self._passed: tuple[tuple[str, str], ...] = ()
        #: Of the sandboxes' Python; until one has told, whatever their Python may be.
        self._sandbox_python = ""
        self._pool = SandboxPool(
            partial(Sandbox, self.config),
            warm,
            most=max(warm, self.config.max_spares),
            max_runs=self.config.max_runs_per_container,
            max_age_seconds=self.config.max_age_seconds,
        )
        self._finalizer = weakref.finalize(self, self._pool.close)

    def warm(self) -> None:
        """Start warming now instead of at the first execution; returns at once."""
        self._pool.warm()

    def wait_until_warm(self) -> None:
        """Block until the next sandbox is ready, or has failed to start; the next execution says why."""
        self._pool.wait_until_warm()

    def close(self) -> None:
        """Destroy every sandbox and wait until they are gone."""
        self._finalizer()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def execute(
        self,
        request: ExecutionRequest,
        *,
        queue_seconds: float | None = 0.0,
        cancellation: Cancellation | None = None,
    ) -> ExecutionResult:
        """Run one strategy; whatever it does ends in a result.

        Args:
            request: what to run.
            queue_seconds: how long it had waited before it came here, for the metrics.
            cancellation: a handle to end it early.

        Raises:
            SandboxError: the machinery failed; trying again may help.
        """
        started = time.monotonic()
        cancellation = cancellation or Cancellation()
        metrics: dict[str, Any] = {"queue_seconds": queue_seconds}
        refusal = self._refuse(request)
        if refusal is None or self._is_for_the_sandbox(refusal):
            result = self._run(request, cancellation, metrics, refused=refusal is not None)
        else:
            result = refusal
        metrics["total_seconds"] = time.monotonic() - started
        result = result.model_copy(update={"metrics": ExecutionMetrics(**metrics)})
        events.executed.send(sender=CodeExecutor, user_id=request.user_id, result=result)
        return result

    async def execute_strategy(
        self,
        code: str,
        data: JsonValue = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # the strategy's limit, not the caller's patience
        user_id: str = "",
        seed: int | None = None,
    ) -> ExecutionResult:
        """Run one strategy without blocking the event loop; cancelling the awaiting task ends the sandbox.

        Raises:
            InvalidRequest: an argument breaks the contract.
            SandboxError: the machinery failed; trying again may help.
        """
        request = ExecutionRequest.build(code, data, timeout=timeout, user_id=user_id, seed=seed)
        cancellation = Cancellation()
        running = asyncio.get_running_loop().create_task(
            asyncio.to_thread(self.execute, request, cancellation=cancellation)
        )
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            cancellation.cancel()
            await asyncio.wait([running])
            raise

    def _refuse(self, request: ExecutionRequest) -> ExecutionResult | None:
        if not request.data_json:
            return rejection("dataset: only a worker can fetch it: submit the strategy, or give the data")
        ceiling = self.config.limits.timeout_seconds
        if request.timeout is not None and request.timeout > ceiling:
            return rejection(f"timeout: {request.timeout:g} s, this worker allows {ceiling:g} s")
        report = self._validate(request.code) if self._validate else None
        if report is None or report:  # a report is true when it is clean
            return None
        return policy_refusal(report.violations)

    def _is_for_the_sandbox(self, refusal: ExecutionResult) -> bool:
        """Whether the sandbox's own check decides: what is no syntax here may be syntax in another Python."""
        return self._extra_modules is not None and not self._same_grammar() and _is_syntax_error(refusal.violations)

    def _same_grammar(self) -> bool:
        return self._sandbox_python.startswith(f"{GRAMMAR}.")

    def _run(
        self, request: ExecutionRequest, cancellation: Cancellation, metrics: dict[str, Any], *, refused: bool
    ) -> ExecutionResult:
        acquired: Acquired = self._pool.acquire(request.user_id)
        self._sandbox_python = acquired.sandbox.python_version
        reading = (self._sandbox_python, request.code)
        # Of the same grammar, the worker's verdict is the sandbox's. A syntax error may come before that is known.
        unknown = not self._same_grammar() and reading not in self._passed
        check = self._extra_modules if refused or unknown else None
        metrics |= {"startup_seconds": acquired.wait_seconds, "warm": acquired.warm}
        timeout = request.timeout or self.config.limits.timeout_seconds
        sandbox, clean = acquired.sandbox, False
        try:
            cancellation.cover(sandbox)
            ending = sandbox.run(
                request.code, request.data_json, timeout, request.seed, check=check, last=acquired.last
            )
            clean = ending.clean
            if check is not None and clean:
                self._passed = (*self._passed[1 - CODES_REMEMBERED :], reading)
        except SandboxError as exc:
            events.engine_failed.send(sender=CodeExecutor, error=exc)
            raise
        finally:
            cancellation.uncover()
            self._pool.release(acquired, clean=clean and not cancellation.requested)
        if ending.report:
            measured = ("wall_seconds", "cpu_seconds", "peak_memory_bytes")
            metrics |= {name: getattr(ending.report, name) for name in measured}
        else:
            metrics["wall_seconds"] = ending.wall_seconds
        return classify(ending, timeout, self.config)


async def execute_strategy(code: str, data: JsonValue = None, **options: Any) -> ExecutionResult:
    """Run one strategy in a container made for it, and leave nothing behind.

    For more than one, a `CodeExecutor` keeps the next container warm and answers tens of times sooner.

    Args:
        code: Python source.
        data: any JSON value.
        options: as for `CodeExecutor.execute_strategy`.
    """
    executor = CodeExecutor(warm=0)
    try:
        return await executor.execute_strategy(code, data, **options)
    finally:
        await asyncio.to_thread(executor.close)


def extra_modules(policy: Policy) -> dict[str, list[str]] | None:
    """Return the names by module that a policy allows beyond the default; None when it differs in more than those."""
    default = DEFAULT_POLICY.modules
    wider = {
        module: sorted(names - default.get(module, frozenset()))
        for module, names in policy.modules.items()
        if names != default.get(module)
    }
    try:
        return wider if DEFAULT_POLICY.extended(wider) == policy else None
    except ValueError:  # a door that no setting opens
        return None


def _is_syntax_error(violations: Sequence[Violation]) -> bool:
    return [(found.rule, found.message.partition(":")[0]) for found in violations] == [("R0", "syntax error")]
