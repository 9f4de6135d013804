"""From limits to a hardened container: what every sandbox is created with, as a pure function."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.models import ExecutionLimits
from worker.sandbox.owner import OWNER_LABEL

__all__ = ["SandboxConfig"]

#: The system calls of a sandbox. As text, on one line: the engine may be on another machine and opens no file of ours.
SECCOMP_PROFILE = json.dumps(json.loads(resources.files("worker.sandbox").joinpath("seccomp.json").read_bytes()))
#: Runtimes whose name begins so are gVisor.
GVISOR = "runsc"
#: The runtime under which nothing of a run is left for the next.
RUNC = "runc"
#: What gVisor's own kernel takes of the host's processes and threads beside the strategy's: 33 when it waits, 50 when
#: a strategy has 30 threads; each forked process costs about ten more.
GVISOR_PIDS = 256


class SandboxConfig(BaseModel):
    """How sandboxes are made. The defaults are the safe ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(default="stratbox/strategy-executor:0.1.0", min_length=1, description="Executor image.")
    runtime: str | None = Field(default=None, description="Runtime the engine knows, or the engine's default.")
    limits: ExecutionLimits = ExecutionLimits()
    start_timeout_seconds: float = Field(
        default=30.0, gt=0, le=35, description="How long a sandbox may take until it is ready, seconds; 1 s is usual."
    )
    max_spares: int = Field(
        default=3,
        ge=1,
        le=64,
        description="How many sandboxes a pool process keeps ready at most: one, and one more with each burst that "
        "used them up, until one is not needed for a minute.",
    )
    max_runs_per_container: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="How many strategies of one `user_id`, one after the other, a sandbox may serve. With 1 none ever "
        "meets what another left. Only after a clean end, never for an empty `user_id`, and only under runc.",
    )
    max_age_seconds: float = Field(
        default=600.0, gt=0, description="From its first strategy on: a sandbox this old serves no other, seconds."
    )

    @model_validator(mode="after")
    def _serves_many_where_nothing_is_left(self) -> Self:
        if self.max_runs_per_container > 1 and self.runtime not in (None, RUNC):
            msg = (
                f"max_runs_per_container: under {self.runtime} a strategy may leave something for the next (gVisor "
                "lets it at its runner, crun at a file system): leave it out, or STRATBOX_SANDBOX_RUNTIME"
            )
            raise ValueError(msg)
        return self

    @property
    def gvisor(self) -> bool:
        """Whether sandboxes have gVisor's kernel beneath them instead of the host's."""
        return self.runtime is not None and self.runtime.startswith(GVISOR)

    def container_spec(self, owner: str) -> dict[str, Any]:
        """Return the body of the engine's "create container" call."""
        return {
            "Image": self.image,
            "User": "1000:1000",
            "Hostname": "sandbox",
            "NetworkDisabled": True,
            "OpenStdin": True,
            # Hanging up ends the runner, and AutoRemove then the container: it dies with its worker, kill -9 included.
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Labels": {OWNER_LABEL: owner},
            "HostConfig": self._host_config(),
        }

    def _host_config(self) -> dict[str, Any]:
        limits = self.limits
        host_config: dict[str, Any] = {
            "AutoRemove": True,
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true", f"seccomp={SECCOMP_PROFILE}"],
            "Memory": limits.memory_bytes,
            "MemorySwap": limits.memory_bytes,  # memory plus swap: no swap
            "NanoCpus": round(limits.cpus * 1e9),
            "PidsLimit": limits.pids + (GVISOR_PIDS if self.gvisor else 0),
            # Without these two, /dev/shm and POSIX message queues are writable in spite of the read-only root.
            "IpcMode": "none",
            "Ulimits": [
                {"Name": "msgqueue", "Soft": 0, "Hard": 0},
                {"Name": "nofile", "Soft": 256, "Hard": 256},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            # The engine's own log of the output would grow without bound.
            "LogConfig": {"Type": "none"},
            "Privileged": False,
            "OomKillDisable": False,
        }
        # The engine's default may be another one.
        if runtime := self.runtime or (RUNC if self.max_runs_per_container > 1 else None):
            host_config["Runtime"] = runtime
        if self.gvisor:
            # gVisor counts in each sandbox by itself. Never under runc: there it is the uid's sum, over all containers.
            host_config["Ulimits"].append({"Name": "nproc", "Soft": limits.pids, "Hard": limits.pids})
        return host_config
