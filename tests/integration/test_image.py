"""The executor image: what is in it, what is not, and that numpy and pandas work there as they do elsewhere."""

from __future__ import annotations

import base64
import io
import json
import stat
import tarfile
import tomllib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import docker
    from docker.models.images import Image

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile.strategy-executor"
MAX_IMAGE_BYTES = 150_000_000

#: Programs that would help an intruder: shells, package managers, download tools, compilers.
UNWANTED_PROGRAMS = frozenset(
    "sh bash dash ash zsh busybox apk apt apt-get dpkg pip pip3 env perl wget curl nc tar mount su sudo gcc ld".split()
)
#: Packages of Python that install or fetch others.
UNWANTED_MODULES = frozenset({"pip", "ensurepip", "setuptools", "venv", "idlelib", "test", "tests", "f2py"})
#: The engine itself adds these to every container.
ENGINE_PATHS = frozenset({".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab"})

EXERCISE = """
import json
import numpy as np, pandas as pd

index = pd.date_range("2024-03-29", periods=500, freq="h", tz="UTC")
price = pd.Series(100 + np.sin(np.arange(500) / 20), index=index, name="close")
frame = pd.DataFrame({"close": price, "side": np.where(price.diff() > 0, "buy", "sell")})
matrix = np.random.default_rng(7).standard_normal((50, 50))
u, s, vt = np.linalg.svd(matrix)
spectrum = np.abs(np.fft.rfft(price.to_numpy() - price.mean()))
bars = price.resample("1D").ohlc()
delta = price.diff()
gain = delta.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
loss = -delta.clip(upper=0).ewm(alpha=1 / 14, adjust=False).mean()
new_york = price.tz_convert("America/New_York")
merged = pd.merge_asof(frame.reset_index(), bars.add_prefix("day_").reset_index(), on="index")
text = pd.Series(["aapl us", "Msft US", None], dtype="str").str.upper().str.split().str[0]
result = json.dumps(
    {
        "svd": bool(np.allclose(u @ np.diag(s) @ vt, matrix)),
        "inverse": bool(np.allclose(np.linalg.inv(matrix) @ matrix, np.eye(50))),
        "period": int(round(500 / int(spectrum.argmax()))),
        "days": len(bars),
        "groups": sorted(frame.groupby("side")["close"].mean().index),
        "rolling": round(float(price.rolling("24h").mean().iloc[-1]), 6),
        "rsi_bounded": bool((100 - 100 / (1 + gain / loss)).dropna().between(0, 100).all()),
        "offset": str(new_york.index[0]),
        "summer": str(pd.Timestamp("2024-07-01 12:00", tz="Europe/Paris").utcoffset()),
        "text": text.dropna().tolist(),
        "merged": merged.shape,
        "round_trip": json.loads(bars.to_json(orient="table"))["data"][0]["open"],
        "pivot": frame.pivot_table(index=frame.index.hour, columns="side", values="close").shape[0],
        "quantile": round(float(np.quantile(price, 0.5)), 3),
        "described": int(frame.describe()["close"]["count"]),
        "printed": "close" in frame.tail(2).to_string(),
        "days_off": len(pd.bdate_range("2024-01-01", "2024-01-31")),
    }
)
# With its newline: the engine's log keeps no unfinished line.
print(result)
"""

STDLIB = """
import abc, bisect, collections, contextlib, copy, dataclasses, datetime, decimal, enum, fractions, functools, hashlib
import heapq, itertools, json, logging, math, numbers, operator, random, re, statistics, string, textwrap, time
import traceback, typing, uuid, warnings, zoneinfo
logging.getLogger().warning("to stderr")
print(statistics.mean([1, 2]), decimal.Decimal("0.1") + 1, hashlib.sha256(b"").hexdigest()[:8])
print(zoneinfo.ZoneInfo("Asia/Tokyo"), zoneinfo.ZoneInfo("America/New_York"))
"""


@pytest.fixture(scope="module")
def image(docker_client: docker.DockerClient, executor_image: str) -> Image:
    """The image under test."""
    return docker_client.images.get(executor_image)


@pytest.fixture(scope="module")
def members(docker_client: docker.DockerClient, executor_image: str) -> dict[str, tarfile.TarInfo]:
    """Every path of the image's file system, by name without a leading slash."""
    container = docker_client.containers.create(executor_image, network_disabled=True)
    try:
        exported = io.BytesIO(b"".join(container.export()))
    finally:
        container.remove(force=True)
    with tarfile.open(fileobj=exported) as archive:
        paths = {member.name.removeprefix("./").rstrip("/"): member for member in archive}
    return {name: member for name, member in paths.items() if name not in ENGINE_PATHS and name.split("/")[0] != "dev"}


def run_python(client: docker.DockerClient, image: str, code: str, *options: str) -> str:
    """Run code in a container like a sandbox's and return its standard output; an exit code but 0 raises."""
    output: bytes = client.containers.run(
        image,
        ["-s", "-P", "-W", "error", *options, "-c", code],
        entrypoint="/python",
        remove=True,
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        mem_limit="256m",
        memswap_limit="256m",
        pids_limit=32,
        ipc_mode="none",
    )
    return output.decode()


def test_image_is_small(image: Image) -> None:
    """The whole image stays under 150 MB."""
    assert image.attrs["Size"] < MAX_IMAGE_BYTES


def test_image_starts_the_runner_as_an_ordinary_user(image: Image) -> None:
    """User, directory and entry point are the image's own: forgetting them on a container is harmless."""
    config = image.attrs["Config"]
    assert config["User"] == "1000:1000"
    assert config["WorkingDir"] == "/workspace"
    assert config["Entrypoint"] == ["/python", "-s", "-P", "-m", "worker.sandbox.boot"]
    assert not config["Cmd"]
    assert not config.get("Volumes")
    assert not config.get("ExposedPorts")


def test_image_labels_say_what_it_was_built_from(image: Image) -> None:
    """Version and licence in the usual labels, and the hash by which `ops/setup` knows its own work."""
    labels = image.labels
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert labels["org.opencontainers.image.version"] == version
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"]
    assert len(bytes.fromhex(labels["stratbox.inputs"])) == 32


def test_environment_is_fixed_and_holds_no_build_setting(image: Image) -> None:
    """What the build was told about proxies and package indexes stays out of the image."""
    environment = dict(entry.split("=", 1) for entry in image.attrs["Config"]["Env"])
    assert set(environment) == {
        "PATH",
        "HOME",
        "LANG",
        "PYTHONUTF8",
        "PYTHONHASHSEED",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONMALLOC",
        "MIMALLOC_ALLOW_LARGE_OS_PAGES",
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
    }
    assert environment["OPENBLAS_NUM_THREADS"] == "1"
    assert environment["PYTHONHASHSEED"] == "0"


def test_the_only_program_is_python(members: dict[str, tarfile.TarInfo]) -> None:
    """No shell, no package manager, no tool: nothing in a directory of programs but the interpreter."""
    names = {Path(name).name for name in members}
    assert not names & UNWANTED_PROGRAMS
    files = [name for name, member in members.items() if member.isfile()]
    programs = [name for name in files if Path(name).parent.name in {"bin", "sbin"}]
    assert len(programs) == 1
    assert Path(programs[0]).name.startswith("python3.")
    assert members["python"].issym()
    assert members["python"].linkname == f"/{programs[0]}"


def test_no_installer_and_no_tests_of_packages(members: dict[str, tarfile.TarInfo]) -> None:
    """Nothing that installs packages, and none of the dead weight of the ones that are there."""
    assert not {part for name in members for part in name.split("/")} & UNWANTED_MODULES
    assert not [name for name in members if name.endswith((".py", ".pyi", ".h", ".a"))]


def test_nothing_is_setuid_or_a_device(members: dict[str, tarfile.TarInfo]) -> None:
    """No file that raises privileges, no device, socket or pipe."""
    assert not [name for name, member in members.items() if member.mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not [name for name, member in members.items() if not (member.isfile() or member.isdir() or member.issym())]


def test_nothing_is_writable_for_the_strategy(members: dict[str, tarfile.TarInfo]) -> None:
    """Even on a writable root: everything is root's, and writable for root alone."""
    assert not [name for name, member in members.items() if (member.uid, member.gid) != (0, 0)]
    writable = stat.S_IWGRP | stat.S_IWOTH
    assert not [name for name, member in members.items() if member.mode & writable and not member.issym()]


def test_tmp_is_not_empty(members: dict[str, tarfile.TarInfo]) -> None:
    """GVisor would mount a writable tmpfs over an empty or missing /tmp."""
    assert any(name.startswith("tmp/") for name in members)


def test_data_file_is_a_link_to_the_inherited_descriptor(members: dict[str, tarfile.TarInfo]) -> None:
    """The strategy's data needs no mount: the path leads to what the runner leaves open."""
    assert members["workspace/data.json"].issym()
    assert members["workspace/data.json"].linkname == "/proc/self/fd/3"
    assert [name for name in members if name.startswith("workspace/")] == ["workspace/data.json"]


def test_users_are_root_and_trader(docker_client: docker.DockerClient, executor_image: str) -> None:
    """Inside, the process is `trader`, and nobody else is known but root."""
    code = "import os, pwd; print(os.getuid(), os.getgid(), os.getgroups(), sorted(u.pw_name for u in pwd.getpwall()))"
    assert run_python(docker_client, executor_image, code) == "1000 1000 [1000] ['root', 'trader']\n"


def test_no_path_can_be_created_on_a_writable_root(docker_client: docker.DockerClient, executor_image: str) -> None:
    """The file modes hold by themselves, without the read-only flag."""
    code = (
        "import os\n"
        "found = [top for top, _, _ in os.walk('/') if not top.startswith(('/proc', '/sys', '/dev')) "
        "and os.access(top, os.W_OK)]\n"
        "print(found)"
    )
    output = docker_client.containers.run(
        executor_image, ["-c", code], entrypoint="/python", remove=True, network_mode="none"
    )
    assert output == b"[]\n"


def test_numpy_and_pandas_work(docker_client: docker.DockerClient, executor_image: str) -> None:
    """Linear algebra, FFT, random numbers, resampling, grouping, windows, time zones, JSON and strings."""
    result = json.loads(run_python(docker_client, executor_image, EXERCISE))
    assert result == {
        "svd": True,
        "inverse": True,
        "period": 125,
        "days": 21,
        "groups": ["buy", "sell"],
        "rolling": result["rolling"],
        "rsi_bounded": True,
        "offset": "2024-03-28 20:00:00-04:00",
        "summer": "2:00:00",
        "text": ["AAPL", "MSFT"],
        "merged": [500, 7],
        "round_trip": 100.0,
        "pivot": 24,
        "quantile": result["quantile"],
        "described": 500,
        "printed": True,
        "days_off": 23,
    }
    assert 99 < result["rolling"] < 101
    assert 99 < result["quantile"] < 101


def test_the_usual_standard_library_is_there(docker_client: docker.DockerClient, executor_image: str) -> None:
    """What strategies import beside numpy and pandas survived the trimming."""
    assert run_python(docker_client, executor_image, STDLIB) == ("1.5 1.1 e3b0c442\nAsia/Tokyo America/New_York\n")


def test_runner_is_installed_and_complete(docker_client: docker.DockerClient, executor_image: str) -> None:
    """The runner and all that it imports load with what the image has, from a directory that is not the current one."""
    code = "import worker.sandbox.runner as runner; print(runner.__file__)"
    assert run_python(docker_client, executor_image, code).endswith("/worker/sandbox/runner.pyc\n")


@pytest.fixture(scope="module")
def runner_sources() -> str:
    """The modules of this checkout that the image has: short code that gives their sources by name."""
    words = [line.split() for line in DOCKERFILE.read_text().splitlines() if line.startswith("COPY")]
    copied = [ROOT / path for _, *paths, target in words if target.startswith("/build/runner/") for path in paths]
    files = [file for path in copied for file in ([path] if path.is_file() else path.glob("*.py"))]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    assert {"worker.sandbox.runner", "worker.sandbox.standby", "tasks.policy", "tasks.checks"} <= set(names)
    sources = dict(zip(names, (file.read_text() for file in files), strict=True))
    packed = base64.b64encode(zlib.compress(json.dumps(sources).encode(), 9)).decode()
    modules = "base64", "json", "zlib"
    base, parser, packer = (f"__import__({name!r})" for name in modules)
    return f"{parser}.loads({packer}.decompress({base}.b64decode({packed!r})))"


def test_runner_is_that_of_this_checkout(
    docker_client: docker.DockerClient, executor_image: str, runner_sources: str
) -> None:
    """Nobody tests an old image by mistake: run `ops/setup` when this fails."""
    code = (
        "import importlib.util, pathlib\n"
        f"for name, source in {runner_sources}.items():\n"
        # A compiled module carries a hash of its source, keyed by the version of Python.
        "    compiled = pathlib.Path(importlib.util.find_spec(name).origin).read_bytes()\n"
        "    if compiled[8:16] != importlib.util.source_hash(source.encode()): print(name)"
    )
    assert run_python(docker_client, executor_image, code).split() == []


def test_archive_is_that_of_this_checkout(
    docker_client: docker.DockerClient, executor_image: str, runner_sources: str
) -> None:
    """What runs is the archive's code, not the files': each module of the runner's, compiled anew, is the same."""
    code = (
        "import json, marshal\n"
        "archive = marshal.loads(open('/runner.modules', 'rb').read())\n"
        f"sources = {runner_sources}\n"
        "stale = [name for name, (file, _, code) in archive.items() if name in sources and code != compile(\n"
        "    sources[name], file.replace('.pyc', '.py'), 'exec', dont_inherit=True, optimize=2)]\n"
        "print(json.dumps([stale, sorted(sources.keys() - archive.keys()), len(archive)]))"
    )
    stale, missing, count = json.loads(run_python(docker_client, executor_image, code, "-X", "no_debug_ranges"))
    assert stale == []
    assert missing == []
    assert count > 400, "numpy and pandas, too"


def test_the_archive_takes_nothing_away(docker_client: docker.DockerClient, executor_image: str) -> None:
    """Whatever pandas has without it pandas has with it, on demand at the latest."""
    code = (
        "import json, pandas\n"
        "print(json.dumps({name: type(getattr(pandas, name)).__name__ for name in dir(pandas) if name[0] != '_'}))"
    )
    use = "from worker.sandbox import archive\narchive.use()\n"
    plain, archived = (json.loads(run_python(docker_client, executor_image, first + code)) for first in ("", use))
    assert len(plain) > 100
    assert archived == plain
