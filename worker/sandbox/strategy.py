"""What the forked child does: run the very string that was validated, as `__main__`, and explain how it failed.

Nothing here is trusted by the runner; it only passes the explanation on. Standard library only.
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import os
import random
import sys
import traceback
import types
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import mmap

#: The file name strategies see in their tracebacks.
STRATEGY_FILE = "strategy.py"
#: Room for the explanation of an exception, bytes of ASCII JSON. Whatever a strategy scribbles there, the report that
#: quotes it (at most 6 bytes for each) still fits one frame.
EXPLANATION_BYTES = 32 * 1024
MAX_NAME_CHARS = 200
MAX_MESSAGE_CHARS = 2_000
#: How much of a traceback's end to keep; less where its characters need escapes.
TRACEBACK_CHARS = (8_000, 2_000, 0)


def run(seed: int | None, source: str, explanation: mmap.mmap) -> NoReturn:
    """Run the strategy and leave the process with its exit code."""
    code = 1
    try:
        reseed(seed)
        code = execute(source, explanation)
    finally:
        # Not sys.exit(): neither the runner's frames above nor anybody's clean-up may run in the child.
        os._exit(code)


def open_streams() -> None:
    """Put fresh unbuffered text streams on descriptors 0 to 2, so that a kill loses nothing that was printed."""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _writer(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _writer(2)  # type: ignore[misc]


def _writer(fd: int) -> io.TextIOWrapper:
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)


def reseed(seed: int | None) -> None:
    """Give the global generators their own seed: a fork inherits the runner's state, the same in every sandbox."""
    if seed is not None:
        random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy and (seed is not None or "numpy.random" in sys.modules):  # imported later, it finds a seed of its own
        numpy.random.seed(seed if seed is not None else int.from_bytes(os.urandom(4), "big"))


def execute(source: str, explanation: mmap.mmap) -> int:
    """Compile and run `source`; return the exit code, and explain an exception on stderr and in `explanation`."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = [STRATEGY_FILE]
    linecache.cache[STRATEGY_FILE] = (len(source), None, source.splitlines(keepends=True), STRATEGY_FILE)
    try:
        exec(compile(source, STRATEGY_FILE, "exec", dont_inherit=True), module.__dict__)
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return (exc.code or 0) & 0xFF
        _explain(exc, explanation)  # sys.exit("why")
        return 1
    except BaseException as exc:
        _explain(exc, explanation)
        return 1
    return 0


def _explain(exc: BaseException, explanation: mmap.mmap) -> None:
    report = _own_frames(traceback.TracebackException.from_exception(exc, compact=True))
    text = "".join(report.format())
    with contextlib.suppress(Exception):  # the strategy may have closed, replaced or removed the stream
        sys.stderr.write(text)
    lines = [frame.lineno for frame in report.stack]
    if isinstance(exc, SyntaxError) and exc.filename == STRATEGY_FILE:
        lines.append(exc.lineno)
    detail = {
        "type": type(exc).__name__[:MAX_NAME_CHARS],
        "message": _message(exc),
        "line": lines[-1] if lines else None,
    }
    for kept in TRACEBACK_CHARS:
        encoded = json.dumps({**detail, "traceback": text[len(text) - kept :] if kept < len(text) else text}).encode()
        if len(encoded) <= EXPLANATION_BYTES:
            explanation.write(encoded)
            return


def _message(exc: BaseException) -> str:
    try:
        return str(exc)[:MAX_MESSAGE_CHARS]
    except BaseException:
        return "<the exception has no readable message>"


def _own_frames(report: traceback.TracebackException) -> traceback.TracebackException:
    """Drop every frame that is not the strategy's, from the exception and from those it was raised from."""
    links: list[traceback.TracebackException | None] = [report]
    while links:
        if link := links.pop():
            own = [frame for frame in link.stack if frame.filename == STRATEGY_FILE]
            link.stack = traceback.StackSummary.from_list(own)
            links += [link.__cause__, link.__context__, *(link.exceptions or ())]
    return report
