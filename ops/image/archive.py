"""Write the modules that a runner imports into one file, for `worker.sandbox.archive`.

Runs during the image build, after `assemble.py`; standard library only.

    archive.py PACKAGES SOURCES RUNNER ROOTFS    what pip installed, the runner's sources, and both assembled trees

The file becomes a part of RUNNER. ROOTFS is changed, and of no use afterwards.
"""

from __future__ import annotations

import ast
import json
import marshal
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from assemble import run_within, settle, site_directory

if TYPE_CHECKING:
    from collections.abc import Callable

ARCHIVE = "runner.modules"

#: Prints what a runner has imported when it is ready: name, file, and whether it is a package.
LISTING = """
import json, sys
from worker.sandbox import boot, check, preload, runner
preload.libraries()
preload.random()
specs = [getattr(module, "__spec__", None) for module in sys.modules.values()]
found = [one for one in specs if one and one.has_location]
print(json.dumps([(one.name, one.origin, one.submodule_search_locations is not None) for one in found]))
"""

#: What `import pandas` brings in for names that the code policy refuses, or that nobody computes with, and what comes
#: with it: archives, URLs. A tenth of a start, and of the memory of a sandbox.
PUT_OFF = frozenset(
    """
    pandas.api pandas.testing pandas.io.api pandas.io.common pandas.io.json._normalize pandas.core.computation.api
    pandas.util._print_versions pandas.util._tester
    """.split()
)
#: Added to a package that puts off what only others look for in it.
ON_DEMAND = """
def __getattr__(name):
    if name not in _put_off:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    module = import_module(_put_off[name])
    globals()[name] = found = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
    return found

def __dir__():
    return [*globals(), *_put_off]
"""
#: In place of a function that a module puts off, and calls itself.
ON_CALL = """
def {name}(*args, **kwargs):
    from {module} import {name}
    return {name}(*args, **kwargs)
"""


def take_out(tree: ast.Module) -> dict[str, str]:
    """Remove what is to be put off from the imports of a module; return the modules that its names come from.

    Raises:
        SystemExit: there is nothing of it: the module has changed.
    """
    taken: dict[str, str] = {}
    for statement in [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]:
        for alias in list(statement.names):
            if within := PUT_OFF & {statement.module, f"{statement.module}.{alias.name}"}:
                taken[alias.name] = min(within)
                statement.names.remove(alias)
        if not statement.names:
            tree.body.remove(statement)
    if not taken:
        message = "a module that put something off imports nothing of it any more: see PUT_OFF and CHANGES"
        raise SystemExit(message)
    return taken


def on_demand(source: str) -> str:
    """Return the source of a package that imports some modules only when it is asked for what is in them."""
    tree = ast.parse(source)
    taken = take_out(tree)
    return f"{ast.unparse(tree)}\n_put_off = {taken!r}\n{ON_DEMAND}"


def on_call(source: str) -> str:
    """Return the source of a module that imports some functions only when it calls them."""
    tree = ast.parse(source)
    functions = (ON_CALL.format(name=name, module=module) for name, module in take_out(tree).items())
    return "\n".join([ast.unparse(tree), *functions])


def without_random(source: str) -> str:
    """Return the source of a module that names types of numpy.random, for annotations only, without them.

    Raises:
        SystemExit: it names none: the module has changed.
    """
    changed, count = re.subn(r"\bnp\.random\.\w+", "object", source)
    if not count:
        message = "a module that named types of numpy.random names none any more: see CHANGES"
        raise SystemExit(message)
    return changed


#: Modules that are another text in the archive. Two of them do nothing but add docstrings.
CHANGES: dict[str, Callable[[str], str]] = {
    "numpy/_core/_add_newdocs.py": lambda _: "",
    "numpy/_core/_add_newdocs_scalars.py": lambda _: "",
    "pandas/__init__.py": on_demand,
    "pandas/_typing.py": without_random,
    "pandas/core/frame.py": on_call,
    "pandas/io/formats/format.py": on_call,
}


def source_of(file: Path, roots: tuple[Path, ...]) -> Path:
    """Return where the source of an installed module is: the first of its places where there is one."""
    installed = site_directory()
    if not file.is_relative_to(installed):
        return file
    return next(root / file.relative_to(installed) for root in roots if (root / file.relative_to(installed)).exists())


def main(packages: Path, sources: Path, runner: Path, rootfs: Path) -> None:
    """Write the archive.

    Without docstrings, asserts and columns (`-X no_debug_ranges`): half of the bytes. Strategies are compiled in full.
    """
    shutil.copytree(runner, rootfs, dirs_exist_ok=True)
    changed = rootfs / site_directory().relative_to("/")
    for name, change in CHANGES.items():
        (changed / name).write_text(change((packages / name).read_text()))  # a source goes before its bytecode
    modules: dict[str, tuple[str, bool, object]] = {}
    for name, origin, is_package in json.loads(run_within(rootfs, LISTING)):
        file, code = Path(origin), None
        if file.suffix in {".py", ".pyc"}:
            source = source_of(file.with_suffix(".py"), (changed, sources, packages)).read_bytes()
            code = compile(source, file.with_suffix(".py"), "exec", dont_inherit=True, optimize=2)
            file = file.with_suffix(".pyc")
        modules[name] = (str(file), is_package, code)
    (runner / ARCHIVE).write_bytes(marshal.dumps(modules))
    settle(runner)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
