"""The stack's .env: what compose.yaml asks for. Passwords are random, and what is there already is never changed.

environment.py              add what is missing to .env
environment.py redis-url    print where producers on this machine find the stack's Redis
environment.py next         say where everything is, and how to submit
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_ENGINE = "unix:///var/run/docker.sock"
#: What `ops/setup` builds where an image of compose.yaml cannot be pulled.
STAND_INS = {
    "STRATBOX_REDIS_IMAGE": "stratbox/redis:trixie",
    "STRATBOX_PROMETHEUS_IMAGE": "stratbox/prometheus:trixie",
}
PASSWORDS = (
    "STRATBOX_REDIS_PASSWORD",
    "STRATBOX_FLOWER_PASSWORD",
    "STRATBOX_FLOWER_COOKIE_SECRET",
    "STRATBOX_GRAFANA_PASSWORD",
)


def read(path: Path) -> dict[str, str]:
    """Return the variables of an environment file; none where there is no file."""
    if not path.exists():
        return {}
    lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def write(path: Path) -> list[str]:
    """Add what is missing to an environment file that only its owner may read; return the names of what was added."""
    present = read(path)
    added = {name: value for name, value in _wanted().items() if name not in present}
    if added:
        text = path.read_text() if path.exists() else ""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write("" if text.endswith("\n") or not text else "\n")
            stream.writelines(f"{name}={value}\n" for name, value in added.items())
    return list(added)


def _wanted() -> dict[str, str]:
    # Hexadecimal: needs no quoting in a URL, a shell or a configuration file.
    passwords = {name: secrets.token_hex(24) for name in PASSWORDS}
    return passwords | _engine(os.environ.get("DOCKER_HOST", DEFAULT_ENGINE)) | _images()


def _engine(address: str) -> dict[str, str]:
    """Return how workers in containers reach the engine: by its socket, as a member of its group, or by its address."""
    if not address.startswith("unix://"):
        return {
            "STRATBOX_ENGINE": address,
            "STRATBOX_ENGINE_SOCKET": os.devnull,
            "STRATBOX_ENGINE_GROUP": str(os.getgid()),
        }
    socket = address.removeprefix("unix://")
    return {"STRATBOX_ENGINE_SOCKET": socket, "STRATBOX_ENGINE_GROUP": str(Path(socket).stat().st_gid)}


def _images() -> dict[str, str]:
    """Return the stand-ins that are here for images that are not."""
    compose = (ROOT / "compose.yaml").read_text()
    chosen = {}
    for variable, stand_in in STAND_INS.items():
        default = re.search(rf"\$\{{{variable}:-([^}}]+)\}}", compose)
        if default and not _has_image(default[1]) and _has_image(stand_in):
            chosen[variable] = stand_in
    return chosen


def _has_image(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0


def redis_url(variables: dict[str, str]) -> str:
    """Return the address of the stack's Redis for this machine, password included."""
    port = variables.get("STRATBOX_REDIS_PORT", "16379")
    return f"redis://:{variables['STRATBOX_REDIS_PASSWORD']}@127.0.0.1:{port}/0"


def next_steps(variables: dict[str, str]) -> str:
    """Return what to do with a stack that is up."""
    places = [("Flower", _place("FLOWER", 5555, variables.get("STRATBOX_FLOWER_USER", "operator"), variables))]
    if variables.get("COMPOSE_PROFILES"):
        places.append(("Prometheus", f"http://127.0.0.1:{variables.get('STRATBOX_PROMETHEUS_PORT', '9090')}"))
    if variables.get("COMPOSE_PROFILES") == "monitoring":
        places.append(("Grafana", _place("GRAFANA", 3000, "admin", variables)))
    steps = [
        ("submit", "export STRATBOX_REDIS_URL=$(.venv/bin/python ops/stack/environment.py redis-url)"),
        ("", ".venv/bin/stratbox submit --wait examples/rsi_mean_reversion.py --data examples/data/sp500.json"),
        ("scale", "make scale N=3"),
        ("end", "make down"),
    ]
    return "\n".join(f"{name:<12}{text}" for name, text in places + steps)


def _place(service: str, port: int, user: str, variables: dict[str, str]) -> str:
    where = variables.get(f"STRATBOX_{service}_PORT", port)
    return f"http://127.0.0.1:{where} (user {user}; grep {service}_PASSWORD .env)"


def main(arguments: list[str]) -> None:
    """Run one of the commands of the module's docstring."""
    path = ROOT / ".env"
    if not arguments:
        print(", ".join(write(path)) or "nothing was missing")
    elif arguments == ["redis-url"]:
        print(redis_url(read(path) | dict(os.environ)))
    elif arguments == ["next"]:
        print(next_steps(read(path) | dict(os.environ)))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
