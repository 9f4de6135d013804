"""What the strategy's process does first, where it is told to: check the source with the sandbox's own grammar.

A worker of another Python reads another grammar: it refuses syntax that it does not know, and what it has checked may
not be what runs here. Hostile source may crash a parser, so it is not the runner that parses. Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING

from tasks.policy import DEFAULT_POLICY
from tasks.validator import ASTValidator, Violation
from worker.sandbox.frames import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable

#: Room for the violations: the runner sends them as they are, in one frame.
VERDICT_BYTES = MAX_PAYLOAD_BYTES
#: What is wrong with a source that ended the process which checked it.
UNREADABLE = Violation(
    rule="R0",
    line=1,
    column=1,
    text="",
    message="the source could not be parsed: it brings the parser down",
    hint=DEFAULT_POLICY.hint("R0"),
)


def run(extra_modules: dict[str, list[str]], source: str, verdict: mmap.mmap) -> None:
    """Return if the policy, with `extra_modules`, lets `source` pass; else write what it refuses, and leave with 0."""
    policy = DEFAULT_POLICY
    if extra_modules:
        policy = policy.extended(modules=extra_modules)
    report = ASTValidator(policy).validate(source)
    if not report:
        verdict.write(encode(report.violations))
        os._exit(0)


def encode(violations: Iterable[Violation]) -> bytes:
    """Return violations as a JSON list in ASCII: the first ones, as many as there is room for."""
    pieces: list[bytes] = []
    room = VERDICT_BYTES - len("[")
    for violation in violations:
        piece = json.dumps(dataclasses.asdict(violation)).encode("ascii")
        room -= len(piece) + len(",")  # or "]" after the last
        if room < 0:
            break
        pieces.append(piece)
    return b"[" + b",".join(pieces) + b"]"
