"""Settings of a worker host, from `STRATBOX_*` variables."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic needs it at run time

from pydantic import Field

from tasks.settings import LimitSettings
from worker.metrics import MetricsSettings
from worker.sandbox.config import SandboxConfig

__all__ = ["WorkerSettings"]


class WorkerSettings(LimitSettings):
    """What an operator may set on a worker host.

    A field of a group is its own variable: `STRATBOX_SANDBOX_RUNTIME`, `STRATBOX_LIMITS_MEMORY_BYTES`. The limits are
    ceilings: a request may ask for less, never for more.
    """

    sandbox: SandboxConfig = Field(default=SandboxConfig(), description="How sandboxes are made.")
    metrics: MetricsSettings = Field(default=MetricsSettings(), description="What Prometheus can ask.")
    dataset_cache_bytes: int = Field(
        default=2**28,
        ge=0,
        description="Bytes that data sets a worker has run with may take as files in its folder for temporary files "
        "(`TMPDIR`), so that it does not fetch them again; 0 for none.",
    )
    engine_patience_seconds: float = Field(
        default=25.0,
        ge=0,
        le=30,
        description="How long an execution waits where it is for an engine that is away, before it is put back and "
        "tried again later. With the strategy's own time it must fit under the soft limit of 100 s.",
    )
    tries: int = Field(
        default=8, ge=1, description="How often the infrastructure may fail a submission before it is given up."
    )
    retry_seconds: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="Longest pause after the first failure; doubled each time up to 60 s. Random, from half of it up.",
    )
    health_file: Path | None = Field(
        default=None, description="Where the worker writes how it is, for `python -m worker.health`; nowhere if unset."
    )

    def sandbox_config(self) -> SandboxConfig:
        """Return the sandbox these settings describe, limits included."""
        return self.sandbox.model_copy(update={"limits": self.limits})
