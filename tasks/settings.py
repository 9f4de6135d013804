"""Settings both sides share, from `STRATBOX_*` variables."""

from __future__ import annotations

from pydantic import Field, RedisDsn, TypeAdapter, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]

_REDIS_URL: TypeAdapter[RedisDsn] = TypeAdapter(RedisDsn)


class Settings(BaseSettings):
    """Where the queue is and how long things are kept."""

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

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        _REDIS_URL.validate_python(url)
        return url
