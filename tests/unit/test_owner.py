"""Owners: who is gone and who is not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from worker.sandbox.owner import Owner


def test_the_label_survives_its_way_through_the_engine() -> None:
    """What is written on a container is what is read from it."""
    assert Owner.parse(str(Owner.current())) == Owner.current()


def test_who_lives_is_not_gone() -> None:
    """This process is alive."""
    assert not Owner.current().gone()


def test_who_has_ended_is_gone() -> None:
    """A process that has ended and been waited for is gone."""
    code = "from worker.sandbox.owner import Owner; print(Owner.current())"
    label = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert Owner.parse(label.strip()).gone()


def test_another_process_of_the_same_number_is_another() -> None:
    """A number that was given out again does not keep a container alive."""
    assert dataclasses.replace(Owner.current(), started=1).gone()


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"boot": "another"}, {"namespace": "pid:[1]"}])
def test_what_is_not_seen_from_here_is_not_judged(change: dict[str, str]) -> None:
    """Another host, its namesake, or a container that shares this host's name: whether its owner lives is not known."""
    nobody = dataclasses.replace(Owner.current(), pid=2**22 + 1)
    assert nobody.gone()
    assert not dataclasses.replace(nobody, **change).gone()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, False),
        ({"boot": "another"}, True),
        ({"boot": "another", "namespace": "pid:[1]"}, True),
        ({"boot": "another", "host": "elsewhere"}, False),
        ({"namespace": "pid:[1]"}, False),
    ],
)
def test_another_boot_is_one_of_this_host(change: dict[str, str], *, expected: bool) -> None:
    """A restart changes the boot and may change the namespace; another host always has another boot."""
    assert dataclasses.replace(Owner.current(), **change).of_another_boot() is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "label",
    ["", "host/1", "a/b/c/d", "a/b/c/d/e", "a/b/c/1/2/3", "a/b/c/1/x", "a/b/c/0/1", "a/b/c/-1/1", f"a/b/c/{10**20}/1"],
)
def test_a_foreign_label_is_refused(label: str) -> None:
    """What is not ours is not ours to judge."""
    with pytest.raises(ValueError, match=r"."):
        Owner.parse(label)
