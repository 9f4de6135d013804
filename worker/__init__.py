"""The consumer: runs strategies, each in a container of its own."""

from __future__ import annotations

from worker.executor import CodeExecutor, execute_strategy
from worker.sandbox.config import SandboxConfig

__all__ = ["CodeExecutor", "SandboxConfig", "execute_strategy"]
