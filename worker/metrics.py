"""Serves a worker's metrics to Prometheus: one port for all its processes.

Each process keeps its values in files of its own; the main process adds them up when it is asked, and reads the queue's
length from Redis at the same time. The files are in a folder that the main process makes before it forks, and that the
reaper, which leaves last, removes.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from typing import TYPE_CHECKING, Annotated, Any

from celery.signals import worker_process_init
from prometheus_client import values
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from pydantic_settings import NoDecode

from worker import scrape
from worker.folders import SharedFolder
from worker.instruments import Instruments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.app import StratboxApp

__all__ = ["FOLDER", "MetricsSettings", "join", "start"]

logger = logging.getLogger(__name__)

#: Where prometheus_client keeps the values of several processes.
FOLDER = SharedFolder("PROMETHEUS_MULTIPROC_DIR", "stratbox-metrics-")
MAX_TENANT_CLASSES = 20

TenantClass = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,32}$")]


class MetricsSettings(BaseModel):
    """What an operator may set about metrics."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    port: int = Field(default=9808, ge=0, le=65535, description="Port of the metrics for Prometheus; 0 for none.")
    address: str = Field(default="127.0.0.1", min_length=1, description="Address the metrics are served on.")
    # NoDecode: pydantic-settings would report bad JSON in an error of its own, without the variable's name.
    tenant_classes: Annotated[dict[str, TenantClass], NoDecode] = Field(
        default={},
        description='Classes of users in the metrics, JSON from pattern to class: `{"fund-*": "fund"}`. The first '
        "pattern that fits counts; whoever none fits is `default`.",
    )

    @field_validator("tenant_classes", mode="before")
    @classmethod
    def _read_json(cls, value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            msg = 'not JSON like {"fund-*": "fund"}'
            raise ValueError(msg) from None

    @field_validator("tenant_classes")
    @classmethod
    def _is_bounded(cls, classes: dict[str, str]) -> dict[str, str]:
        if len(set(classes.values())) > MAX_TENANT_CLASSES:
            msg = f"more than {MAX_TENANT_CLASSES} classes: each multiplies the series Prometheus keeps"
            raise ValueError(msg)
        return classes


def start(settings: MetricsSettings, app: StratboxApp) -> None:
    """Serve metrics from this process, a worker's main one, before it forks; with port 0 do nothing.

    A port that is taken, as by a second worker on the same host, is a warning: strategies are worth more than numbers.
    """
    if not settings.port:
        return
    try:
        os.environ[FOLDER.variable] = tempfile.mkdtemp(prefix=FOLDER.prefix)
        server = scrape.serve(settings.address, settings.port, app)
    except OSError as exc:
        FOLDER.remove()
        os.environ.pop(FOLDER.variable, None)
        logger.warning(
            "no metrics at %s:%d (%s): set STRATBOX_METRICS_PORT to another port, or to 0",
            settings.address,
            settings.port,
            exc.strerror or exc,
        )
        return
    _listen(settings.tenant_classes)
    # A pool process that outlives the main one must not keep the port from the next worker.
    worker_process_init.connect(lambda **_: server.socket.close(), weak=False)


def join() -> None:
    """Count in this process, too: one that a worker with metrics has started."""
    if FOLDER.path():
        _listen({})


def _listen(tenant_classes: Mapping[str, str]) -> None:
    # prometheus_client decides at its import whether there is a folder, and Celery's command line imports it: it loads
    # Flower's command, too.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
    Instruments(tenant_classes).connect()
