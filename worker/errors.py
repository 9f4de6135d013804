"""What can go wrong on the worker's side: infrastructure only, each of these makes the task be retried.

StratboxError (tasks.errors)
└── SandboxError               the machinery failed, not the strategy
    ├── EngineUnavailable      the container engine does not answer
    ├── ImageMissing           the executor image is not there, or is not the one this version needs
    ├── SandboxStartError      a container could not be created, started or made ready in time
    ├── SandboxLost            a running container went away together with its engine
    └── WorkerDied             the worker died each time it ran; it is not tried again
"""

from __future__ import annotations

from tasks.errors import StratboxError

__all__ = ["EngineUnavailable", "ImageMissing", "SandboxError", "SandboxLost", "SandboxStartError", "WorkerDied"]


class SandboxError(StratboxError):
    """The machinery failed, not the strategy."""


class EngineUnavailable(SandboxError):
    """The container engine does not answer."""


class ImageMissing(SandboxError):
    """The executor image is not there, or does not speak this version's protocol."""


class SandboxStartError(SandboxError):
    """A container could not be created, started or made ready in time."""


class SandboxLost(SandboxError):
    """A running container went away and its engine cannot say why."""


class WorkerDied(SandboxError):
    """Whatever worker ran the submission has died, three times."""
