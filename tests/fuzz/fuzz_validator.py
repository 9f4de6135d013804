"""`make fuzz`: a coverage-guided attack on the validator. Prints counts; leaves with 1 at the first finding.

Atheris drives it and keeps what reaches new code. Inputs are cut and joined from honest and hostile sources, line by
line and word by word: flipped bits seldom get past the parser.
"""

from __future__ import annotations

import ast
import contextlib
import os
import random
import re
import sys
import textwrap
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

with atheris.instrument_imports(["tasks.checks", "tasks.validator"]):
    from tasks.validator import ASTValidator

from validator_properties import Broken, check

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SEED_FOLDERS = ("tests/corpus", "examples")
DEFAULT_SECONDS = 60.0
MAX_BYTES = 8192
#: For a hang inside the parser, which nothing in Python could end: libFuzzer leaves with 70.
HANG_SECONDS = 30
#: Shares of inputs that libFuzzer mutates byte by byte, and that start from a seed.
BLIND, FRESH = 0.1, 0.4
NAMES = """eval exec open type getattr __import__ __class__ __init__ __globals__ __builtins__ os sys np pd self cls
    super format format_map lambda query read_csv to_csv to_pickle apply agg map _mgr _x gi_frame f_back tb_frame mro
    Enum field name dtype buffer capsule x print 0 1e999""".split()
PIECES = (
    *"case async await class def global del yield return with import from as ** := -> @ ( ) [ ] { } , . : ; =".split(),
    *"'__' f'{x}' f'{x!r:>{n}}' b'' ''' \\ \\N{DASH} #coding: '/workspace/data.json'".split(),
    *("\0", "\r", "\f", "\n", "\t", "\ud800", "é", "\uff45val"),
)
_TITLE = re.compile(r"^=== .*\n", re.MULTILINE)
_WORD = re.compile(r"\w+|\s+|.", re.DOTALL)


class Fuzzer:
    """Makes inputs, and counts what the validator answers until the time is up."""

    def __init__(self, seconds: float) -> None:
        self._validator = ASTValidator()
        self._seeds = sorted({unit for source in _sources() for unit in _statements(source)})
        self._started = time.monotonic()
        self._seconds = seconds
        self._rules: Counter[str] = Counter()
        self._accepted = self._refused = 0

    def run_one(self, data: bytes) -> None:
        """Check one input; ends the process when the time is up, as libFuzzer would do it without a word."""
        code = _text(data)
        try:
            report = check(self._validator, code)
        except Broken as exc:
            self._leave(1, f"{exc}\nfuzz: the source was {code!r}")
        self._accepted += bool(report)
        self._refused += not report
        self._rules.update({violation.rule for violation in report.violations})
        if time.monotonic() - self._started > self._seconds:
            self._leave(0, "no finding")

    def mutate(self, data: bytes, max_size: int, seed: int) -> bytes:
        """Return another source, made of this one and of the seeds."""
        chance = random.Random(seed)
        if chance.random() < BLIND:
            return bytes(atheris.Mutate(data, max_size))
        # Often from a seed again: what grows from broken source mostly stays broken.
        lines = (chance.choice(self._seeds) if chance.random() < FRESH else _text(data)).split("\n")
        for _ in range(chance.randint(1, 4)):
            edit = chance.choice((self._graft, self._graft, _swap_name, _swap_name, _swap_name, _break, _move, _wrap))
            edit(lines, chance)
        return "\n".join(lines).encode("utf-8", "surrogatepass")[:max_size]

    def _graft(self, lines: list[str], chance: random.Random) -> None:
        """Put a statement of a seed before a line, as deep as that is."""
        place = chance.randrange(len(lines))
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        lines[place:place] = [indent + line for line in chance.choice(self._seeds).split("\n")]

    def _leave(self, code: int, ending: str) -> None:
        seconds = time.monotonic() - self._started
        total = self._accepted + self._refused
        rules = ", ".join(
            f"{rule} {count}" for rule, count in sorted(self._rules.items(), key=lambda it: int(it[0][1:]))
        )
        print(f"fuzz: {total} inputs in {seconds:.0f} s, {self._accepted} accepted, {self._refused} refused ({rules})")
        print(f"fuzz: {ending}", flush=True)
        os._exit(code)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _sources() -> Iterator[str]:
    """Yield the examples and the corpus, in which a file may hold several sources, each below a title."""
    for folder in SEED_FOLDERS:
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in {".py", ".txt"}:
                yield from _TITLE.split(path.read_text())


def _statements(source: str) -> Iterator[str]:
    """Yield a source and every statement in it; of one with wrong syntax, only the whole."""
    yield source
    with warnings.catch_warnings(), contextlib.suppress(SyntaxError, ValueError):
        warnings.simplefilter("ignore")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.stmt):
                # Lines of a body keep their place, the first one has lost it.
                yield textwrap.dedent(" " * node.col_offset + (ast.get_source_segment(source, node) or ""))


def _swap_name(lines: list[str], chance: random.Random) -> None:
    """Write another name where one stands: the source most likely stays a program."""
    number = chance.randrange(len(lines))
    words = _WORD.findall(lines[number])
    names = [index for index, word in enumerate(words) if word.isidentifier()]
    if names:
        words[chance.choice(names)] = chance.choice([*NAMES, *(words[index] for index in names)])
        lines[number] = "".join(words)


def _break(lines: list[str], chance: random.Random) -> None:
    """Put something between two words, or in the place of one."""
    number = chance.randrange(len(lines))
    words = _WORD.findall(lines[number])
    start = chance.randint(0, len(words))
    words[start : start + chance.randint(0, 1)] = [chance.choice(PIECES)]
    lines[number] = "".join(words)


def _move(lines: list[str], chance: random.Random) -> None:
    """Drop some lines, or say them twice."""
    start = chance.randrange(len(lines))
    stop = start + chance.randint(1, 4)
    lines[start:stop] = lines[start:stop] * chance.choice((0, 2))
    lines[:] = lines or [""]


def _wrap(lines: list[str], chance: random.Random) -> None:
    """Put all lines from one on below a header."""
    start = chance.randrange(len(lines))
    header = chance.choice(("class A:", "def f(self, *a, k=1):", "for i in x:", "if x:", "with x as y:", "while 1:"))
    lines[start:] = [header, *(f"    {line}" for line in lines[start:])]


def main() -> None:
    """Fuzz for as many seconds as the command line says."""
    fuzzer = Fuzzer(float(sys.argv[1]) if sys.argv[1:] else DEFAULT_SECONDS)
    options = [f"-max_len={MAX_BYTES}", f"-timeout={HANG_SECONDS}", "-verbosity=0", "-artifact_prefix=.setup/fuzz-"]
    atheris.Setup([sys.argv[0], *options], fuzzer.run_one, custom_mutator=fuzzer.mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
