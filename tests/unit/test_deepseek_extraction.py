"""The program in a reply: found among prose, thoughts and other blocks, and never half of one."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.deepseek.extraction import extract
from tasks.errors import NoCode

CODE = 'import json\n\nprint(json.dumps({"signal": "hold"}))\n'
FENCED = f"```python\n{CODE}```"
LONG = "import math\n" + "x = math.pi\n" * 40


@pytest.mark.parametrize(
    "reply",
    [
        FENCED,
        f"```py\n{CODE}```",
        f"```python3\n{CODE}```",
        f"```python\n{CODE}`````",
        f"```Python\n{CODE}```\n",
        f"```\n{CODE}```",
        f"~~~python\n{CODE}~~~",
        f"````python\n{CODE}````",
        f"```python title=strategy.py\n{CODE}```",
        f"``` python\n{CODE}``` ",
        f"```{{.python}}\n{CODE}```",
        f"Here is the strategy:\n\n{FENCED}\n\nIt holds. Good luck!",
        FENCED.replace("\n", "\r\n"),
        f"1. The program:\n\n   ```python\n   {CODE.strip().replace(chr(10), chr(10) + '   ')}\n   ```\n",
        CODE,
        f"Sure, here it is.\n\n{CODE}",
        f"{CODE}\n```json\n{{}}\n```\n",
        f"\ufeff{FENCED}",
        f"\u200b```python\n\ufeff{CODE}```",
        f"\ufeff{CODE}",
        f"```ipython\n{CODE}```",
        f"```tool_code\n{CODE}```",
        f"```markdown\nHere it is:\n{FENCED}\n```\n",
        f"````md\n{FENCED}\n````\n",
        f"Here is the program: ```python\n{CODE}```\nHope this helps",
        f"```python\n{CODE.strip()}```",
        f"```python\n{CODE.strip()}```  \nHope this helps",
        f"```python\n{CODE}``` That's it.",
        f"```python\n{CODE}```<|end_of_sentence|>",
        f"import this idea from the paper.\n\n{CODE}",
    ],
)
def test_code_is_found(reply: str) -> None:
    """Fenced in any way, in a list, with prose around, or bare."""
    assert extract(reply).code == CODE


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>\nMaybe\n```python\nimport os\n```\nNo.\n</think>\n\n{FENCED}",
        f"<think>short</think>\n{FENCED}",
        f"We could use\n```python\nimport os\nprint(1)\n```\n</think>\n{FENCED}",
        f"<reasoning>\nfirst\n</reasoning>\n<thinking>\nimport os\n</thinking>\n{FENCED}",
        f"<THINK>\n{LONG}</THINK>\n{CODE}",
        f"<think>\nhm\n</think> Here it is:\n{FENCED}",
        f"<think>\nhm\n</think>{FENCED}",
        f"<think>ok</think>Sure.\n{FENCED}",
        f"{FENCED}\nThat is all. </think>",
        f"{FENCED}\n</think>\n",
    ],
)
def test_what_was_thought_aloud_is_left_out(reply: str) -> None:
    """Drafts among the thoughts are not the answer, even where the opening tag is missing."""
    assert extract(reply).code == CODE


@pytest.mark.parametrize(
    "first",
    [
        "WINDOW = 14",
        'NAMES: list[str] = ["rsi"]',
        "'''What it does.'''",
        '"""What it does."""',
        "from math import (pi, e)",
        "import numpy as np, pandas as pd  # both",
        "@dataclass",
        "class Strategy:",
        "class Strategy :",
        "import math; import statistics",
        "from math import sqrt, \\\n    pi",
    ],
)
def test_a_program_without_fences_begins_with_its_first_line(first: str) -> None:
    """Constants and docstrings before the imports are part of it; prose is not."""
    prose = "RSI = relative strength index; class dismissed.\nA = 3 is chosen.\n@param x is it.\n\n"
    assert extract(f"{prose}{first}\n{CODE}").code == f"{first}\n{CODE}"


@pytest.mark.parametrize(
    "reply",
    [
        f"```markdown\n# Plan\nBuy low.\n```\n\n{FENCED}\nThis prints the result.",
        f"{FENCED}\n```markdown\n# Plan\n```\nThat was it.",
        f"I will answer in one block, opened by ```python\n\n{FENCED}\nDone.",
        f"```markdown\nHere:\n{FENCED}\n```\nHope this helps",
    ],
)
def test_what_is_around_a_program_does_not_take_its_place(reply: str) -> None:
    """Whatever fences are spoken of, or closed."""
    assert extract(reply).code == CODE
    assert extract(reply, whole=False).code == CODE


@pytest.mark.parametrize(
    "first",
    ['"""Prints\n\nUsage: ```\n"""', "# a table between ```", 'TABLE = """\n```csv\na,b\n"""'],
)
def test_marks_in_a_program_do_not_cut_it(first: str) -> None:
    """Where another fence closes it."""
    assert extract(f"```python\n{first}\n{CODE}```").code == f"{first}\n{CODE}"


def test_what_broke_off_is_not_replaced_by_a_snippet() -> None:
    """Though that prints, and is whole."""
    snippet = "Output:\n```python\nprint(json.dumps(result))\n```\nAll of it:\n"
    with pytest.raises(NoCode, match="broke off within"):
        extract(f"{snippet}```python\nimport json\n{LONG}", whole=False)
    assert extract(f"{FENCED}\n```json\n{{", whole=False).code == CODE


@pytest.mark.parametrize(
    "reply",
    [
        "```" + " " * 10**6 + "`",
        "```" + "a" * 10**6 + "`",
        "~" * 10**6 + "`",
        "```python\n" + "``" * 500_000,
        "</think>\n" * 100_000,
        "</think>" + " " * 10**6 + "x",
        " " * 10**6 + "`",
        "<think>" * 100_000,
        "import a" + ", a" * 300_000 + "!",
        "```markdown\n" * 100_000,
        "```python\n```\n" * 70_000,
        "".join("`" * (3 + level) + "md\n" for level in reversed(range(1_000))) + "`" * 1_003,
    ],
)
def test_no_reply_keeps_the_extraction_busy(reply: str) -> None:
    """A megabyte takes no longer than a megabyte should: whoever waits for it is the event loop."""
    began = time.thread_time()
    with contextlib.suppress(NoCode):
        extract(reply)
    assert time.thread_time() - began < 2  # 0.3 s; what is quadratic takes minutes


def test_blank_lines_of_a_string_stay_as_they_are() -> None:
    """They are part of what the program says."""
    code = 'print("""a\n   \nb""")\n'
    assert extract(f"```python\n{code}```").code == code


def test_a_tag_in_a_string_is_no_thought() -> None:
    """Only one that ends its line closes a thought."""
    code = 'print("</think>")\nprint(1)\n'
    assert extract(f"```python\n{code}```").code == code


@pytest.mark.parametrize(
    "other",
    [
        "```bash\npip install pandas numpy and more of them, a long line of shell\n```",
        '```json\n{"signal": "hold", "print(": "a long example of what comes out, longer than the code"}\n```',
        "```python\nrsi = 100\n```",
        "```\na table, or the output it would have\n```",
    ],
)
def test_of_several_blocks_the_program_is_taken(other: str) -> None:
    """Commands, output and snippets are not it, before or after."""
    assert extract(f"{other}\n\nand\n\n{FENCED}").code == CODE
    assert extract(f"{FENCED}\n\nand\n\n{other}").code == CODE


def test_a_choice_is_told() -> None:
    """Two blocks of Python: the one that prints, of two such the longer one, and the number of both."""
    assert extract(f"```python\nprint('{'x' * 200}')\n```\n{FENCED}").code.startswith("print('xxx")
    found = extract(f"```python\n{LONG}```\n{FENCED}\n```sh\nls\n```")
    assert (found.code, found.blocks) == (CODE, 2)


@pytest.mark.parametrize(
    "reply", ["", "   \n", "I cannot do that.", "```\n\n```", "```python\n```", "<think>\nimport os\nprint(1)"]
)
def test_no_code(reply: str) -> None:
    """Nothing to run, thoughts that never ended included."""
    with pytest.raises(NoCode, match="no block of Python"):
        extract(reply)


def test_half_a_program_is_none() -> None:
    """A reply that ran out of tokens within the code is told apart from one that ran out after it."""
    with pytest.raises(NoCode, match="broke off within"):
        extract(f"```python\n{CODE}", whole=False)
    with pytest.raises(NoCode, match="broke off within"):
        extract(CODE, whole=False)
    assert extract(f"{FENCED}\nThis strategy is", whole=False).code == CODE


def test_a_fence_that_was_never_closed_is_forgiven() -> None:
    """Where the model says that it had finished."""
    assert extract(f"```python\n{CODE}").code == CODE


def test_a_fence_in_the_code_does_not_end_it() -> None:
    """A longer fence holds shorter ones; inline marks are none."""
    code = 'TEXT = """\n```\ninner\n```\n"""\nprint(TEXT)\n'
    assert extract(f"````python\n{code}````").code == code
    inline = "x = '```'  # ``` no fence\nprint(x)\n"
    assert extract(f"```python\n{inline}```").code == inline


@given(reply=st.text(alphabet="`~ \n<>/thinkpyo.", max_size=200), whole=st.booleans())
def test_any_reply_gives_code_or_says_there_is_none(reply: str, *, whole: bool) -> None:
    """Whatever comes back: text that is not empty, or NoCode."""
    with contextlib.suppress(NoCode):
        assert extract(reply, whole=whole).code.strip()
