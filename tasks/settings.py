"""Settings both sides share, from `STRATBOX_*` variables."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, RedisDsn, TypeAdapter, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tasks.policy import DEFAULT_POLICY, Policy

__all__ = ["Settings"]

_REDIS_URL: TypeAdapter[RedisDsn] = TypeAdapter(RedisDsn)


class Settings(BaseSettings):
    """Where the queue is, how long things are kept, and what the code policy allows beyond its own lists."""

    model_config = SettingsConfigDict(env_prefix="STRATBOX_", frozen=True, extra="ignore", hide_input_in_errors=True)

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0", description="Redis for queue and results, `redis://` or `rediss://`."
    )
    #: Celery's own default, so that `send_task("STRATEGY_EXECUTION", …)` of a producer without our code arrives.
    queue: str = Field(default="celery", pattern=r"^[\w.-]+$", description="Name of the queue.")
    result_expires_seconds: int = Field(default=86_400, ge=60, description="How long results are kept.")
    visibility_timeout_seconds: int = Field(
        default=240,
        ge=180,
        le=3600,
        description="After this long a delivered but unfinished task goes to another worker; above every time limit.",
    )

    # NoDecode: pydantic-settings would report bad JSON in an error of its own, without the variable's name.
    policy_extra_modules: Annotated[dict[str, tuple[str, ...]], NoDecode] = Field(
        default={},
        description='Modules and names to add to the code policy, JSON: `{"decimal": ["FloatOperation"]}`. '
        "Known ways out of the policy are refused; for anything else its operator answers.",
    )

    def policy(self) -> Policy:
        """Return the code policy, extensions included."""
        return DEFAULT_POLICY.extended(self.policy_extra_modules)

    @field_validator("policy_extra_modules", mode="before")
    @classmethod
    def _read_json(cls, value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            msg = 'not JSON like {"decimal": ["FloatOperation"]}'
            raise ValueError(msg) from None

    @field_validator("policy_extra_modules")
    @classmethod
    def _opens_no_door(cls, modules: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        DEFAULT_POLICY.extended(modules)
        return modules

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        _REDIS_URL.validate_python(url)
        return url
