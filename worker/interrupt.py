"""Signals that end a command, as Ctrl-C does: what runs is cancelled, what there is is shown."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ending_signals_interrupt"]


@contextlib.contextmanager
def ending_signals_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP act like Ctrl-C, once: a shell that ends sends more than one."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    # `nohup` has it ignored.
    known = {one: kept for one in signals if (kept := signal.getsignal(one)) is not signal.SIG_IGN}

    def interrupt(*_: object) -> None:
        for one in known:
            signal.signal(one, signal.SIG_IGN)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)  # which asyncio takes as a cancel of its main task

    try:
        for one in known:
            signal.signal(one, interrupt)
        yield
    finally:
        for one, kept in known.items():
            signal.signal(one, kept)
