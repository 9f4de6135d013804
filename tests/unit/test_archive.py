"""Modules out of an archive: found by name, once, and like those of their files but for where their code is."""

from __future__ import annotations

import importlib
import marshal
import sys
from typing import TYPE_CHECKING

import pytest

from worker.sandbox import archive
from worker.sandbox.archive import ArchiveFinder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

SOURCES = {
    "stbox_package": ("stbox_package/__init__.py", True, "from stbox_package.inner import VALUE\n"),
    "stbox_package.inner": ("stbox_package/inner.py", False, "VALUE = 'archive'\ndef where(): return __file__\n"),
    "stbox_broken": ("stbox_broken.py", False, "1 / 0\n"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose archive is in use; what stands beside it is imported from there as always."""
    modules = {
        name: (str(tmp_path / file), is_package, compile(source, str(tmp_path / file), "exec"))
        for name, (file, is_package, source) in SOURCES.items()
    }
    (tmp_path / "modules").write_bytes(marshal.dumps(modules))
    monkeypatch.setattr(archive, "PATH", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    archive.use()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("stbox_")]:
        del sys.modules[name]


def load(name: str) -> ModuleType:
    """Import a module."""
    importlib.invalidate_caches()
    return importlib.import_module(name)


def test_a_package_comes_out_of_the_archive(folder: Path) -> None:
    """None of its files need be there; it knows where they would be."""
    package = load("stbox_package")
    inner = sys.modules["stbox_package.inner"]
    assert package.VALUE == "archive"
    assert package.__path__ == [str(folder / "stbox_package")]
    assert (inner.__package__, inner.where()) == ("stbox_package", str(folder / "stbox_package/inner.py"))
    assert inner.where.__code__.co_filename == inner.__file__


def test_the_archive_comes_first(folder: Path) -> None:
    """A file of the same name does not."""
    (folder / "stbox_package").mkdir()
    (folder / "stbox_package/__init__.py").write_text("VALUE = 'file'\n")
    assert load("stbox_package").VALUE == "archive"


def test_what_is_not_in_it_is_imported_as_always(folder: Path) -> None:
    """From its file; and what is nowhere is not found."""
    (folder / "stbox_other.py").write_text("VALUE = 'file'\n")
    assert load("stbox_other").VALUE == "file"
    with pytest.raises(ModuleNotFoundError, match="stbox_nowhere"):
        load("stbox_nowhere")


def test_what_it_raises_is_raised(folder: Path) -> None:
    """With its line, as from a file."""
    with pytest.raises(ZeroDivisionError) as caught:
        load("stbox_broken")
    assert str(caught.traceback[-1].path) == str(folder / "stbox_broken.py")
    assert caught.traceback[-1].lineno == 0


def test_each_module_is_found_once() -> None:
    """A strategy that imports anew gets the file's, and the archive's memory is given back."""
    modules = {"stbox_once": ("/stbox_once.py", False, compile("", "/stbox_once.py", "exec"))}
    finder = ArchiveFinder({**modules})
    assert finder.find_spec("stbox_once") is not None
    assert finder.find_spec("stbox_once") is None


def test_a_shared_library_is_loaded_from_its_file() -> None:
    """The archive only knows where it is."""
    spec = ArchiveFinder({"stbox_fast": ("/lib/stbox_fast.so", False, None)}).find_spec("stbox_fast")
    assert spec is not None
    assert spec.origin == "/lib/stbox_fast.so"
    assert type(spec.loader).__name__ == "ExtensionFileLoader"
