"""Teach the local Docker engine the runtime `runsc` (gVisor), and see a strategy through under it. `make gvisor`.

Does only what is missing: installs runsc (Debian and Ubuntu, as root), adds `gvisor.json` to the engine's own settings,
has the engine read them again without a restart, and runs one strategy. Where that fails, one line says why.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import docker.errors

from tasks.errors import StratboxError
from tasks.models import ExecutionRequest
from worker.executor import CodeExecutor
from worker.sandbox.config import GVISOR, SandboxConfig
from worker.sandbox.container import connect

OURS = Path(__file__).with_name("gvisor.json")
ENGINE_SETTINGS = Path("/etc/docker/daemon.json")
ENGINE_PID = Path("/var/run/docker.pid")
#: How long the engine may take to read its settings again, seconds.
RELOAD_SECONDS = 10
BY_HAND = "docs/engine.md tells how to do it by hand"


def main() -> None:
    """Say in one line how it went; exit code 1 when sandboxes cannot have gVisor here."""
    try:
        if not is_known():
            install()
            register()
        seconds = try_strategy()
    except StratboxError as exc:
        sys.exit(f"gvisor: {exc}")
    print(f"gvisor: a strategy ran {seconds:.1f} s after its sandbox was asked for; STRATBOX_SANDBOX_RUNTIME={GVISOR}")


def is_known() -> bool:
    """Whether the engine has the runtime."""
    client = connect()
    try:
        return GVISOR in client.info()["Runtimes"]
    except docker.errors.DockerException as exc:
        msg = f"the engine does not answer: {exc}"
        raise StratboxError(msg) from exc
    finally:
        client.close()


def install() -> None:
    """Install Debian's package, unless the program is there.

    Raises:
        StratboxError: it is not there, and cannot be installed here.
    """
    if os.environ.get("DOCKER_HOST"):
        msg = f"the engine at DOCKER_HOST does not know {GVISOR}: {BY_HAND}"
        raise StratboxError(msg)
    if os.geteuid() != 0:
        msg = f"installing {GVISOR} takes root: run `sudo make gvisor`, or {BY_HAND}"
        raise StratboxError(msg)
    program = json.loads(OURS.read_bytes())["runtimes"][GVISOR]["path"]
    if Path(program).exists():
        return
    if not shutil.which("apt-get"):
        msg = f"there is no {program}, and no apt-get to install it with: {BY_HAND}"
        raise StratboxError(msg)
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=120"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", GVISOR]):
        done = subprocess.run([*apt, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        msg = f"apt-get could not install {GVISOR}: {(done.stderr.splitlines() or ['it does not say why'])[-1]}"
        raise StratboxError(msg)


def register() -> None:
    """Add our settings to the engine's and have them read.

    Raises:
        StratboxError: the engine did not take ours; its own are then as they were.
    """
    before = ENGINE_SETTINGS.read_text() if ENGINE_SETTINGS.exists() else None
    write(merge(before or "{}", OURS.read_text()))
    reload_engine()
    deadline = time.monotonic() + RELOAD_SECONDS
    while not is_known():
        if time.monotonic() > deadline:
            # A file that the engine does not like would keep it from starting next time.
            write(before)
            msg = f"the engine did not take the runtime from {ENGINE_SETTINGS}: its log says why, and {BY_HAND}"
            raise StratboxError(msg)
        time.sleep(0.2)


def merge(theirs: str, ours: str) -> str:
    """Return the engine's settings with our runtimes beside theirs; what they have already stays as it is.

    Raises:
        StratboxError: theirs are not what an engine reads.
    """
    try:
        settings = json.loads(theirs)
        settings["runtimes"] = json.loads(ours)["runtimes"] | settings.get("runtimes", {})
    except (ValueError, TypeError, AttributeError) as exc:
        msg = f"{ENGINE_SETTINGS} cannot be added to, correct it first: {exc}"
        raise StratboxError(msg) from exc
    return json.dumps(settings, indent=2) + "\n"


def write(content: str | None) -> None:
    """Replace the engine's settings in one step; None removes them."""
    if content is None:
        ENGINE_SETTINGS.unlink()
        return
    ENGINE_SETTINGS.parent.mkdir(exist_ok=True)
    partial = ENGINE_SETTINGS.with_suffix(".partial")
    partial.write_text(content)
    if ENGINE_SETTINGS.exists():
        shutil.copymode(ENGINE_SETTINGS, partial)
    partial.replace(ENGINE_SETTINGS)


def reload_engine() -> None:
    """Have the engine read its settings again; containers that run are not touched."""
    try:
        pid = int(ENGINE_PID.read_text())
        is_engine = Path(f"/proc/{pid}/comm").read_text().strip() == "dockerd"
    except (OSError, ValueError):
        is_engine = False
    if is_engine:  # else nothing happens, and register() says so
        os.kill(pid, signal.SIGHUP)


def try_strategy() -> float:
    """Run one strategy under gVisor; return how long it took from nothing, seconds.

    Raises:
        StratboxError: it does not come through.
    """
    started = time.monotonic()
    with CodeExecutor(SandboxConfig(runtime=GVISOR), warm=0) as executor:
        result = executor.execute(ExecutionRequest(code="print(len(open('/workspace/data.json').read()))"))
    if not result.success or result.output != "2\n":
        msg = f"a sandbox starts, but a strategy ends as {result.status}: {result.error}"
        raise StratboxError(msg)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
