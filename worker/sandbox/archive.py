"""Modules out of one file: a runner imports some 450 until it is ready.

Looking for each, and reading it, takes a fifth of the time of a start. `ops/image/archive.py` writes their bytecode
into one file, in which a name or a constant that many of them have stands once. What is not in it is imported as
always. Standard library only.
"""

from __future__ import annotations

import marshal
import mmap
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourcelessFileLoader
from importlib.util import spec_from_file_location
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType

#: Made at the same time as the image, and as read-only as the rest of it.
PATH = "/runner.modules"


class ArchiveLoader(SourcelessFileLoader):
    """Loads a module whose code is there already; all else it knows of its file."""

    def __init__(self, fullname: str, path: str, code: CodeType) -> None:
        super().__init__(fullname, path)
        self._code: CodeType | None = code

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code; asked a second time, as for a reload, that of the file."""
        code, self._code = self._code, None
        return code or super().get_code(fullname)


class ArchiveFinder:
    """Finds the modules of an archive, each once.

    Args:
        modules: by name: its file, whether it is a package, and its code; None for a shared library.
    """

    def __init__(self, modules: dict[str, tuple[str, bool, CodeType | None]]) -> None:
        self._modules = modules

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return where a module comes from; None for one that is not in the archive."""
        if fullname not in self._modules:
            return None
        file, is_package, code = self._modules.pop(fullname)
        if code is None:
            return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))
        within = [file.rpartition("/")[0]] if is_package else None
        loader = ArchiveLoader(fullname, file, code)
        return spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=within)


def use() -> None:
    """Take modules from the archive from now on."""
    with open(PATH, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        sys.meta_path.insert(0, ArchiveFinder(marshal.loads(content)))
