"""compose.yaml and the .env beside it, without starting anything."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from settings_table import rows
from stack import environment

from tasks.app import HARD_LIMIT_SECONDS
from tasks.settings import Settings
from worker.sandbox.config import SandboxConfig
from worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "compose.yaml").read_text()
STACK: dict[str, Any] = YAML(typ="safe").load(TEXT)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
REQUIRED = sorted(set(re.findall(r"\$\{(\w+):\?", TEXT)))


def test_schema() -> None:
    """The file is what the published schema of compose files says, so `docker compose` takes it, too."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    """Read-only root, no capability, no new privileges, a ceiling for memory and processes, ports on loopback only."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"] > 0
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_only_workers_reach_the_engine() -> None:
    """The engine's socket is root on the host: no other service has it."""
    assert [name for name in SERVICES if "docker.sock" in str(SERVICES[name].get("volumes"))] == ["worker"]


def test_monitoring_is_a_profile() -> None:
    """Prometheus and Grafana come only when asked for; the former on its own, too."""
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"prometheus": ["monitoring", "prometheus"], "grafana": ["monitoring"]}


def test_grace_period_is_above_the_hard_limit() -> None:
    """A worker that is told to stop may finish whatever it runs."""
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > HARD_LIMIT_SECONDS


def test_settings_reach_the_worker() -> None:
    """What the README lists can be set in .env, but for where Redis is and for what the image itself has set.

    A name without a value would take away what the image has set.
    """
    documented = {variable for model in (Settings, WorkerSettings) for variable, *_ in rows(model)}
    set_by_image = set(re.findall(r"\b(STRATBOX_\w+)=", (ROOT / "Dockerfile.worker").read_text()))
    passed_on = {name for name, value in SERVICES["worker"]["environment"].items() if value is None}
    assert passed_on == {name for name in documented - set_by_image if not name.startswith("STRATBOX_REDIS_")}


def test_version() -> None:
    """The stack runs the images of this version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"stratbox/worker:{version}" in SERVICES["worker"]["image"]
    assert SERVICES["worker"]["image"] == SERVICES["flower"]["image"]
    assert SandboxConfig().image.endswith(f":{version}")


def test_no_password_has_a_default() -> None:
    """Whatever is secret must be set."""
    assert not re.findall(r"\$\{\w*(?:PASSWORD|SECRET)\w*(?::?-|\})", TEXT)
    assert set(environment.PASSWORDS) <= set(REQUIRED)


def test_settings_of_the_file_are_passed_on(tmp_path: Path) -> None:
    """A setting in .env comes out in the worker's environment; one that is not there sets nothing."""
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}=1\n" for name in REQUIRED) + "STRATBOX_LIMITS_CPUS=0.25\n")
    run = compose_config(file)
    assert run.returncode == 0, run.stderr
    passed_on = YAML(typ="safe").load(run.stdout)["services"]["worker"]["environment"]
    assert passed_on["STRATBOX_LIMITS_CPUS"] == "0.25"
    assert passed_on.get("STRATBOX_QUEUE") is None


@pytest.mark.parametrize("missing", REQUIRED)
def test_nothing_starts_without_its_secrets(missing: str, tmp_path: Path) -> None:
    """A variable that is missing or empty ends every command, and the message says what to do."""
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}=1\n" for name in REQUIRED if name != missing))
    run = compose_config(file)
    assert run.returncode != 0
    assert "run make up" in run.stderr


def test_environment_has_all_that_is_required(tmp_path: Path) -> None:
    """With a fresh .env the file is complete; nobody else may read it, and its secrets are of this file alone."""
    first, second = tmp_path / "first", tmp_path / "second"
    environment.write(first)
    environment.write(second)
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert set(REQUIRED) <= environment.read(first).keys()
    secrets = [environment.read(file)[name] for file in (first, second) for name in environment.PASSWORDS]
    assert len(set(secrets)) == 2 * len(environment.PASSWORDS)
    assert all(len(secret) >= 32 for secret in secrets)


def test_environment_is_never_overwritten(tmp_path: Path) -> None:
    """What is there stays, to the letter; what is missing is added, once."""
    file = tmp_path / ".env"
    mine = "# mine\nSTRATBOX_REDIS_PASSWORD=chosen\nSTRATBOX_WORKERS=3"
    file.write_text(mine)
    assert "STRATBOX_REDIS_PASSWORD" not in environment.write(file)
    assert file.read_text().startswith(mine + "\n")
    assert environment.read(file)["STRATBOX_REDIS_PASSWORD"] == "chosen"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert environment.write(file) == []


def test_environment_of_an_engine_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With an engine at an address, workers get the address, and no socket."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    environment.write(tmp_path / ".env")
    written = environment.read(tmp_path / ".env")
    assert written["STRATBOX_ENGINE"] == "tcp://127.0.0.1:1"
    assert written["STRATBOX_ENGINE_SOCKET"] == os.devnull


def test_next_steps_show_no_password(tmp_path: Path) -> None:
    """What `make up` prints may be on a screen that others see."""
    environment.write(tmp_path / ".env")
    variables = environment.read(tmp_path / ".env") | {"STRATBOX_FLOWER_PORT": "5566", "STRATBOX_REDIS_PORT": "7788"}
    steps = environment.next_steps(variables)
    assert "http://127.0.0.1:5566" in steps
    assert not [name for name in environment.PASSWORDS if variables[name] in steps]
    assert environment.redis_url(variables) == f"redis://:{variables['STRATBOX_REDIS_PASSWORD']}@127.0.0.1:7788/0"


def compose_config(file: Path) -> subprocess.CompletedProcess[str]:
    """Let compose read its file with these variables."""
    command: list[str | Path] = [ROOT / "ops/stack/compose", "--env-file", file, "config"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
