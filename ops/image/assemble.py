"""Lay out the root file system of the executor image: Python, numpy, pandas and nothing else.

Runs during the image build with the base image's own Python, on Alpine as well as on Debian; standard library only.

    assemble.py rootfs PACKAGES TARGET    the interpreter, the standard library and what pip put into PACKAGES
    assemble.py runner SOURCES TARGET     the runner, ``worker.sandbox``, and the code policy, of ``tasks``
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import site
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

#: Every file gets this time, so that equal inputs give equal layers.
EPOCH = 1_700_000_000

#: Of the standard library: what serves neither numpy, pandas nor a strategy.
STDLIB_DROPPED = frozenset(
    """
    test idlelib ensurepip tkinter turtledemo lib2to3 pydoc_data distutils venv site-packages dist-packages
    _pyrepl curses dbm msilib sqlite3 wsgiref xmlrpc antigravity.py cProfile.py ftplib.py imaplib.py
    nntplib.py poplib.py profile.py pstats.py pty.py smtplib.py sitecustomize.py telnetlib.py this.py turtle.py
    webbrowser.py __phello__ EXTERNALLY-MANAGED
    """.split()
)

#: Extension modules left out: they belong to the above, or carry a large library that is of no use without sockets
#: and files (OpenSSL: hashlib falls back to its own code).
EXTENSIONS_DROPPED = re.compile(
    r"(_tkinter|_curses|_curses_panel|_dbm|_gdbm|_sqlite3|_ssl|_hashlib|_crypt|readline|nis|ossaudiodev|spwd"
    r"|_test\w*|_ctypes_test|_xxtestfuzz|xxlimited\w*|xxsubtype)\."
)

#: Of the installed packages: directories and files that nothing imports at run time.
PACKAGE_DIRS_DROPPED = frozenset({"tests", "__pycache__", "bin", "include", "f2py", "_pyinstaller", "pkgconfig"})
PACKAGE_SUFFIXES_DROPPED = frozenset({".pyi", ".pyx", ".pxd", ".h", ".c", ".cpp", ".a", ".build", ".ini", ".typed"})
DIST_INFO_DROPPED = frozenset({"RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json", "entry_points.txt"})

PASSWD = "root:x:0:0:root:/:/nonexistent\ntrader:x:1000:1000:trader:/workspace:/nonexistent\n"
GROUP = "root:x:0:\ntrader:x:1000:\n"

#: The runner leaves the run's data at this descriptor; see docs/architecture.md.
DATA_LINK = "/proc/self/fd/3"

#: As in the Dockerfile: an allocator that takes huge pages, which make a start, a fork and an end cheaper.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "PYTHONMALLOC": "mimalloc"}
OLDEST_PYTHON = (3, 13)

#: What must work before the image is worth keeping.
ROOTFS_CHECK = "import json, decimal, logging, statistics, zoneinfo, numpy, pandas; zoneinfo.ZoneInfo('Asia/Tokyo')"
RUNNER_CHECK = "import worker.sandbox.boot, worker.sandbox.runner"


def interpreter() -> Path:
    """Return the real path of the running Python."""
    return Path(sys.executable).resolve()


def site_directory() -> Path:
    """Return the first directory that this interpreter searches for installed packages."""
    return Path(site.getsitepackages()[0])


def keep(path: Path, target: Path) -> Path:
    """Copy one file into the tree at the same path, with every symbolic link on the way; return the copy."""
    here = Path("/")
    for part in path.parts[1:]:
        here = here / part
        copy = target / here.relative_to("/")
        if here.is_symlink():
            if not copy.is_symlink():
                copy.symlink_to(here.readlink())
            rest = path.relative_to(here)
            return keep(Path(os.path.normpath(here.parent / here.readlink() / rest)), target)
        if here.is_dir():
            copy.mkdir(exist_ok=True)
        elif not copy.exists():
            shutil.copyfile(here, copy)
            copy.chmod(stat.S_IMODE(here.stat().st_mode) & 0o555 | 0o444)
    return target / path.relative_to("/")


def elf_interpreter(binary: Path) -> Path:
    """Return the dynamic loader that an executable names in its PT_INTERP header (64-bit little endian)."""
    with binary.open("rb") as file:
        header = file.read(64)
        offset, size, count = (int.from_bytes(header[at : at + n], "little") for at, n in ((32, 8), (54, 2), (56, 2)))
        for index in range(count):
            file.seek(offset + index * size)
            program = file.read(size)
            if int.from_bytes(program[:4], "little") == 3:  # noqa: PLR2004  PT_INTERP
                file.seek(int.from_bytes(program[8:16], "little"))
                return Path(os.fsdecode(file.read(int.from_bytes(program[32:40], "little")).rstrip(b"\0")))
    message = f"{binary} is not dynamically linked"
    raise SystemExit(message)


def shared_libraries(loader: Path, file: Path) -> set[Path]:
    """Return the libraries that the loader (glibc's or musl's) finds for an executable or a library.

    Raises:
        SystemExit: a library is missing.
    """
    # musl also complains of the symbols that an extension module takes from the interpreter: not of interest here.
    listed = subprocess.run([loader, "--list", file], check=False, capture_output=True, text=True)
    output = listed.stdout + listed.stderr
    if missing := re.findall(r"(\S+) => not found|Error loading shared library ([^:]+):", output):
        message = f"{file} needs {missing}"
        raise SystemExit(message)
    return {Path(found) for found in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", output, re.MULTILINE)}


def is_dropped(relative: Path) -> bool:
    """Tell whether a file of an installed package stays out."""
    if relative.parts[0].endswith(".dist-info"):
        return relative.name in DIST_INFO_DROPPED
    directories = set(relative.parts[:-1])
    return bool(directories & PACKAGE_DIRS_DROPPED) or relative.suffix in PACKAGE_SUFFIXES_DROPPED


def copy_packages(packages: Path, destination: Path) -> None:
    """Copy what pip installed, without tests, headers and type stubs."""
    for source in sorted(packages.rglob("*")):
        relative = source.relative_to(packages)
        if source.is_file() and not is_dropped(relative):
            copy = destination / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def copy_stdlib(stdlib: Path, destination: Path) -> None:
    """Copy the standard library without what no strategy needs."""

    def dropped(directory: str, names: list[str]) -> set[str]:
        if Path(directory) == stdlib:
            return {name for name in names if name in STDLIB_DROPPED or name.startswith("config-")} | {"__pycache__"}
        return {name for name in names if name in {"__pycache__", "tests"} or EXTENSIONS_DROPPED.match(name)}

    shutil.copytree(stdlib, destination, ignore=dropped, dirs_exist_ok=True)


def compile_tree(tree: Path) -> None:
    """Replace every module's source by its bytecode, valid whatever the clock or the file times say."""
    compiled = compileall.compile_dir(
        tree,
        quiet=1,
        stripdir=str(tree),
        prependdir="/",
        legacy=True,
        force=True,
        workers=0,
        maxlevels=40,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not compiled:
        message = f"{tree} does not compile"
        raise SystemExit(message)
    for source in tree.rglob("*.py"):
        source.unlink()


def strip_libraries(target: Path) -> None:
    """Drop debug symbols where the base has the tool: a smaller image, not a different one."""
    if tool := shutil.which("strip"):
        for library in target.rglob("*.so*"):
            subprocess.run([tool, "--strip-unneeded", library], check=False, capture_output=True)


def write_system_files(target: Path) -> None:
    """Create users, mount points and the strategy's working directory; nothing of it is writable."""
    for name in ("etc", "workspace", "tmp", "proc", "sys", "dev"):
        (target / name).mkdir(exist_ok=True)
    (target / "etc/passwd").write_text(PASSWD)
    (target / "etc/group").write_text(GROUP)
    (target / "workspace/data.json").symlink_to(DATA_LINK)
    # gVisor mounts a writable tmpfs over a /tmp that is missing or empty.
    (target / "tmp/.read-only").touch()
    (target / "python").symlink_to(interpreter())


def settle(target: Path) -> None:
    """Fix owner, mode and time of everything."""
    for path in (target, *target.rglob("*")):
        os.chown(path, 0, 0, follow_symlinks=False)
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def run_within(target: Path, code: str) -> str:
    """Run code with nothing but the new tree in sight, and return what it printed.

    Raises:
        SystemExit: something that is needed was left out.
    """

    def enter() -> None:
        os.chroot(target)
        os.chdir("/workspace")

    arguments = ["/python", "-s", "-P", "-B", "-c", code]
    done = subprocess.run(arguments, check=False, stdout=subprocess.PIPE, text=True, preexec_fn=enter, env=ENVIRONMENT)
    if done.returncode:
        message = f"the assembled tree does not work: exit code {done.returncode}"
        raise SystemExit(message)
    return done.stdout


def assemble_rootfs(packages: Path, target: Path) -> None:
    """Build the whole tree from the base image's Python and the installed packages.

    Raises:
        SystemExit: that Python is too old, or something that is needed is missing.
    """
    if sys.version_info < OLDEST_PYTHON:
        message = f"this base image has Python {sys.version.split()[0]}: take one with 3.13 or newer"
        raise SystemExit(message)
    target.mkdir(parents=True)
    stdlib = Path(sysconfig.get_path("stdlib"))
    for directory in (stdlib, site_directory()):
        (target / directory.relative_to("/")).mkdir(parents=True, exist_ok=True)
    copy_stdlib(stdlib, target / stdlib.relative_to("/"))
    copy_packages(packages, target / site_directory().relative_to("/"))

    binary = interpreter()
    loader = elf_interpreter(binary)
    for path in (binary, loader, *map(Path, ("/etc/ld.so.cache", f"/etc/{loader.stem.split('.')[0]}.path"))):
        if path.exists():
            keep(path, target)
    modules = [path for path in target.rglob("*.so*") if path.is_file() and not path.is_symlink()]
    originals = [stdlib / "lib-dynload" / path.name for path in modules if path.parent.name == "lib-dynload"]
    installed = [path for path in packages.rglob("*.so*") if not is_dropped(path.relative_to(packages))]
    for file in (binary, *originals, *installed):
        for library in shared_libraries(loader, file):
            if not library.is_relative_to(packages):
                keep(library, target)

    strip_libraries(target)
    compile_tree(target)
    write_system_files(target)
    settle(target)
    run_within(target, ROOTFS_CHECK)


def assemble_runner(sources: Path, target: Path) -> None:
    """Lay the runner and the code policy out where the interpreter looks for packages."""
    packages = target / site_directory().relative_to("/")
    for package in ("tasks", "worker", "worker/sandbox"):
        # Empty: the real ones import what only producers and workers have.
        (sources / package / "__init__.py").touch()
    shutil.copytree(sources, packages)
    compile_tree(target)
    settle(target)
    environment = {"PYTHONPATH": str(packages)}
    subprocess.run([sys.executable, "-B", "-c", RUNNER_CHECK], check=True, env=environment)


if __name__ == "__main__":
    action, source, destination = sys.argv[1:]
    {"rootfs": assemble_rootfs, "runner": assemble_runner}[action](Path(source), Path(destination))
