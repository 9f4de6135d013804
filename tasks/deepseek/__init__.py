"""A model that writes strategies, and is told what became of them. Needs `stratbox[agent]`."""

from __future__ import annotations

try:
    from tasks.deepseek.agent import DeepSeekAgent
except ModuleNotFoundError as exc:
    if exc.name != "openai":
        raise
    msg = "tasks.deepseek needs the package openai: pip install 'stratbox[agent]'"
    raise ModuleNotFoundError(msg, name=exc.name) from exc
from tasks.deepseek.outcome import Attempt, Ended, Outcome, Usage, Verdict
from tasks.deepseek.settings import DeepSeekSettings
from tasks.deepseek.trial import Observer

__all__ = ["Attempt", "DeepSeekAgent", "DeepSeekSettings", "Ended", "Observer", "Outcome", "Usage", "Verdict"]
