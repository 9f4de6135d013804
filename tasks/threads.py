"""Calls that block, beside an event loop: in threads that hold up nobody who leaves."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LEAVING_SECONDS", "in_any_case", "in_own_thread"]

#: How long whoever leaves waits for what is to be done in any case, seconds.
LEAVING_SECONDS = 5.0


async def in_any_case(function: Callable[..., object], *arguments: object) -> None:
    """Run a function in a thread and wait for it, though this task may be cancelled again and again, as anyio does.

    What a silent Redis holds up is waited for some seconds; then it goes on in its thread.
    """
    loop = asyncio.get_running_loop()
    running, deadline = in_own_thread(function, *arguments), loop.time() + LEAVING_SECONDS
    cancelled: asyncio.CancelledError | None = None
    while not running.done() and (seconds := deadline - loop.time()) > 0:
        try:
            await asyncio.wait([running], timeout=seconds)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if running.done() and not cancelled:
        running.result()
    running.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else asks for it
    if cancelled:
        raise cancelled


def in_own_thread(function: Callable[..., Any], *arguments: object) -> asyncio.Future[Any]:
    """Run a function in a thread that nobody waits for at his end, nor for others to become free.

    The loop's executor has a few, for which `asyncio.run` and the interpreter wait: a minute where Redis is silent.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Any] = loop.create_future()
    run = functools.partial(contextvars.copy_context().run, function, *arguments)

    def end(settle: Callable[[Any], None], outcome: object) -> None:
        if not ended.done():  # else nobody waits for it
            settle(outcome)

    def in_thread() -> None:
        settle: Callable[[Any], None] = ended.set_result
        try:
            outcome: object = run()
        except BaseException as exc:  # noqa: BLE001  # raised where it is waited for
            settle, outcome = ended.set_exception, exc
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(end, settle, outcome)

    threading.Thread(target=in_thread, daemon=True).start()
    return ended
