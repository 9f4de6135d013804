"""What docs/producers.md says of models, errors and records, and the code's own word on it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from tasks import ExecutionMetrics, ExecutionRequest, ExecutionResult, Settings, errors
from tasks.app import create_app
from tasks.backend import KNOWN_STATES
from tasks.errors import Backpressure, InvalidRequest, ModelError, StratboxError, UnreadableResult
from tasks.ledger import QUEUED
from tasks.message import encode
from tasks.submission import result_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE = (DOCS / "producers.md").read_text()
#: Raised as one of their kinds only.
ROOTS = {StratboxError, Backpressure}


def section(heading: str) -> str:
    """Return what stands under a heading."""
    return GUIDE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the tables under a heading, without the heads."""
    lines = [line.strip("|").split(" | ") for line in section(heading).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line] for line in lines]


def names(cell: str) -> list[str]:
    """Return what is set as code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_short_message_is_the_file() -> None:
    """What the page shows is what the tests send."""
    (shown,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    assert shown == (DOCS / "producers" / "minimal.json").read_text()


def test_the_record_shown_has_every_field() -> None:
    """Of the result and of its metrics, and no other."""
    result = json.loads((DOCS / "producers" / "record.json").read_text())["result"]
    assert result.keys() == ExecutionResult.model_fields.keys()
    assert result["metrics"].keys() == ExecutionMetrics.model_fields.keys()
    assert ExecutionResult.model_validate(result).success


def test_the_table_of_records_has_every_state() -> None:
    """Celery's that are stored, and the ledger's own."""
    told = [name for row in rows("Results") for name in names(row[0]) if name.isupper()]
    assert sorted(told) == sorted({QUEUED, *KNOWN_STATES})


def test_the_table_of_errors_has_every_error_a_submission_may_raise() -> None:
    """By name; those with `retry_after` are those that are told to wait for it."""
    raised = {name: getattr(errors, name) for name in errors.__all__}
    raised = {name: one for name, one in raised.items() if one not in ROOTS and not issubclass(one, ModelError)}
    told = {name: row for row in rows("Errors")[1:] for name in names(row[0])}
    assert told.keys() == raised.keys()
    waits = {name for name, row in told.items() if "`retry_after`" in row[2]}
    assert waits == {name for name, one in raised.items() if issubclass(one, Backpressure)}


def test_a_request_sends_what_is_set_and_nothing_else() -> None:
    """So a new field is no trouble to an older worker as long as nobody uses it."""
    with create_app(Settings(redis_url="redis://127.0.0.1:1/0")) as app:
        text = encode(app, "x-1", ExecutionRequest(code="x = 1"), {}).text
    assert json.loads(base64.b64decode(json.loads(text)["body"]))[1] == {"code": "x = 1"}


def test_an_older_worker_names_the_field_it_does_not_know() -> None:
    """And every field but the code is optional."""
    with pytest.raises(InvalidRequest, match=r"^of_tomorrow: "):
        ExecutionRequest.parse({"code": "x = 1", "of_tomorrow": 1})
    required = [name for name, field in ExecutionRequest.model_fields.items() if field.is_required()]
    assert required == ["code"]


@pytest.mark.parametrize(
    "change",
    [
        {"of_tomorrow": 1},
        {"metrics": {"of_tomorrow": 1}},
        {"status": "failed", "error": {"type": "E", "message": "m", "of_tomorrow": 1}},
        {
            "violations": [
                {"rule": "R2", "line": 1, "column": 1, "text": "", "message": "", "hint": "", "of_tomorrow": 1}
            ]
        },
    ],
)
def test_an_older_client_reads_a_newer_result(change: dict[str, object]) -> None:
    """Fields that it does not know are left out, wherever they are."""
    result = result_of("x-1", {"status": "SUCCESS", "result": {"status": "succeeded"} | change})
    assert result.status == change.get("status", "succeeded")
    assert "of_tomorrow" not in result.model_dump_json()


@pytest.mark.parametrize("result", [{"status": "of_tomorrow"}, {}, None, "x", {"status": "failed", "metrics": 3}])
def test_a_result_that_an_older_client_cannot_read_says_so(result: object) -> None:
    """With what to do, in one line."""
    with pytest.raises(UnreadableResult, match="update stratbox") as raised:
        result_of("x-1", {"status": "SUCCESS", "result": result})
    assert "\n" not in str(raised.value)


def test_a_newer_client_reads_an_older_result() -> None:
    """What is not there has its default; only the status must be."""
    assert result_of("x-1", {"status": "SUCCESS", "result": {"status": "succeeded"}}).success


def test_links_lead_somewhere() -> None:
    """To a file that is there and, where one is named, to a heading of it."""
    for target, anchor in re.findall(r"\]\(([^)#]+)#?([^)]*)\)", GUIDE):
        text = (DOCS / target).read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}
