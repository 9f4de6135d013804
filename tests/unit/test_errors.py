"""The error tree: one root, and classes that also answer to what Python calls them."""

from __future__ import annotations

import inspect

import pytest

import tasks.errors
import worker.errors
from tasks.errors import InvalidRequest, OutputNotJSON, ResultTimeout, StratboxError, UnknownSubmission
from worker.errors import SandboxError

PRODUCER = [getattr(tasks.errors, name) for name in tasks.errors.__all__]
WORKER = [getattr(worker.errors, name) for name in worker.errors.__all__]


@pytest.mark.parametrize("error", [*PRODUCER, *WORKER])
def test_every_error_has_the_one_root(error: type[Exception]) -> None:
    """`except StratboxError` catches all that is raised on purpose."""
    assert issubclass(error, StratboxError)


@pytest.mark.parametrize("error", WORKER)
def test_worker_errors_are_sandbox_errors(error: type[Exception]) -> None:
    """`except SandboxError` is what makes a task be retried."""
    assert issubclass(error, SandboxError)


@pytest.mark.parametrize("error", PRODUCER)
def test_no_producer_error_makes_a_task_be_retried(error: type[Exception]) -> None:
    """A request that is wrong stays wrong."""
    assert not issubclass(error, SandboxError)


@pytest.mark.parametrize(
    ("error", "familiar"),
    [
        (InvalidRequest, ValueError),
        (OutputNotJSON, ValueError),
        (ResultTimeout, TimeoutError),
        (UnknownSubmission, KeyError),
    ],
)
def test_errors_answer_to_python_s_own_names(error: type[Exception], familiar: type[Exception]) -> None:
    """Callers need not know this project's names."""
    assert issubclass(error, familiar)


@pytest.mark.parametrize("error", [*PRODUCER, *WORKER])
def test_text_is_the_message(error: type[Exception]) -> None:
    """No quotes and no repr around it, the KeyError included."""
    assert str(error("no such id 'x'")) == "no such id 'x'"


@pytest.mark.parametrize("module", [tasks.errors, worker.errors])
def test_the_tree_names_every_class(module: object) -> None:
    """The drawing at the top of the module is complete, and so is `__all__`."""
    defined = {name for name, _ in inspect.getmembers(module, inspect.isclass)}
    exported: list[str] = module.__all__  # type: ignore[attr-defined]
    assert set(exported) | {"StratboxError"} == defined
    assert [name for name in defined if name not in (module.__doc__ or "")] == []


@pytest.mark.parametrize("error", [*PRODUCER, *WORKER])
def test_each_class_is_explained_in_one_sentence(error: type[Exception]) -> None:
    """An error that takes a paragraph to explain is two errors."""
    assert (error.__doc__ or "").strip().count("\n") == 0
    assert (error.__doc__ or "").endswith(".")
