"""Settings both sides share, from `STRATBOX_*` variables."""

from __future__ import annotations

import json
import ssl
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, FilePath, RedisDsn, SecretStr, TypeAdapter, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tasks.models import ExecutionLimits
from tasks.policy import DEFAULT_POLICY, Policy

__all__ = ["LimitSettings", "Settings"]

_REDIS_URL: TypeAdapter[RedisDsn] = TypeAdapter(RedisDsn)
_SENTINEL = "sentinel://"
#: What may be added to the policy, bytes: it goes to a sandbox in one frame with the code.
MAX_EXTRA_BYTES = 32 * 1024


class Settings(BaseSettings):
    """Where the queue is, how long things are kept, and what the code policy allows beyond its own lists."""

    model_config = SettingsConfigDict(env_prefix="STRATBOX_", frozen=True, extra="ignore", hide_input_in_errors=True)

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Redis for queue and results: `redis://`, `rediss://` (TLS), or "
        "`sentinel://host:26379/0;sentinel://other:26379/0`.",
    )
    redis_ca_certs: FilePath | None = Field(
        default=None, description="PEM file of a private CA for TLS. With `sentinel://` it also switches TLS on."
    )
    redis_client_cert: FilePath | None = Field(default=None, description="PEM file, where Redis asks for one.")
    redis_client_key: FilePath | None = Field(default=None, description="Key of that certificate, not encrypted.")
    redis_sentinel_master: str = Field(default="", description="Name under which the Sentinels watch the master.")
    redis_sentinel_password: SecretStr = Field(
        default=SecretStr(""), description="Password of the Sentinels themselves, where they have one."
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

    max_queued: int = Field(
        default=100_000, ge=1, description="How many accepted submissions may be unfinished; then `QueueFull`."
    )
    max_queued_bytes: int = Field(
        default=2**30, ge=1, description="Bytes their messages, compressed, may take in Redis; then `QueueFull`."
    )
    max_per_tenant: int = Field(
        default=10_000, ge=1, description="How many of them may be of one `user_id`; then `TenantLimit`."
    )

    dataset_expires_seconds: int = Field(
        default=86_400,
        ge=60,
        description="How long a data set is kept after it was last put or submitted with. One that a submission waits "
        "or runs with stays.",
    )
    max_dataset_bytes: int = Field(
        default=2**30, ge=1, description="Bytes all data sets, compressed, may take in Redis; then `DatasetsFull`."
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

    @property
    def redis_by_sentinel(self) -> bool:
        """Whether Sentinels say which Redis is the master."""
        return self.redis_url.startswith(_SENTINEL)

    @property
    def redis_over_tls(self) -> bool:
        """Whether the way to Redis, and to its Sentinels, is encrypted."""
        return self.redis_url.startswith("rediss://") or (self.redis_by_sentinel and self.redis_ca_certs is not None)

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
        if len(json.dumps(modules)) > MAX_EXTRA_BYTES:
            msg = f"more than {MAX_EXTRA_BYTES:,} bytes of names"
            raise ValueError(msg)
        DEFAULT_POLICY.extended(modules)
        return modules

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        if not url.startswith(_SENTINEL):
            _check_address(url)
            return url
        addresses = url.split(";")
        for address in addresses:
            _check_sentinel(address)
        return _with_login_of_the_first(addresses)

    @model_validator(mode="after")
    def _sentinels_have_a_master(self) -> Self:
        if self.redis_by_sentinel and not self.redis_sentinel_master:
            msg = "STRATBOX_REDIS_URL names Sentinels: set STRATBOX_REDIS_SENTINEL_MASTER"
            raise ValueError(msg)
        if not self.redis_by_sentinel and (self.redis_sentinel_master or self.redis_sentinel_password):
            msg = "STRATBOX_REDIS_SENTINEL_* is set, but STRATBOX_REDIS_URL does not begin with sentinel://"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _certificates_can_be_used(self) -> Self:
        if (self.redis_client_cert is None) != (self.redis_client_key is None):
            msg = "STRATBOX_REDIS_CLIENT_CERT and STRATBOX_REDIS_CLIENT_KEY belong together: set both"
            raise ValueError(msg)
        if not self.redis_over_tls and (self.redis_ca_certs or self.redis_client_cert):
            msg = "certificates are set, but the way to Redis has no TLS: use rediss://, or sentinel:// and a CA"
            raise ValueError(msg)
        self._load_certificates()
        return self

    def _load_certificates(self) -> None:
        """Try them here, where it is one line, and not in a worker's loop of reconnects."""
        try:
            name = "STRATBOX_REDIS_CA_CERTS"
            context = ssl.create_default_context(cafile=self.redis_ca_certs)
            if self.redis_client_cert:
                name = "STRATBOX_REDIS_CLIENT_CERT and _KEY"
                # A password of nothing: OpenSSL would ask the terminal for one.
                context.load_cert_chain(self.redis_client_cert, self.redis_client_key, password="")
        except OSError as exc:  # ssl.SSLError is one
            msg = f"{name}: not a PEM file that can be used ({exc.strerror or exc})"
            raise ValueError(msg) from None


class LimitSettings(BaseSettings):
    """The limits in force, as far as the variables here say what those of the workers do.

    For who tells a model what holds: what counts is what its worker enforces.
    """

    model_config = SettingsConfigDict(
        env_prefix="STRATBOX_", env_nested_delimiter="_", env_nested_max_split=1, frozen=True, extra="ignore"
    )

    limits: ExecutionLimits = Field(default=ExecutionLimits(), description="What one execution may consume.")


def _check_address(url: str) -> None:
    _REDIS_URL.validate_python(url)
    parts = urlsplit(url)
    if ";" in url:  # kombu would read it as two servers
        msg = "a `;` belongs between sentinel:// addresses only; in a password write %3B"
        raise ValueError(msg)
    if parts.query or parts.fragment:
        # `?ssl_cert_reqs=none` would switch the check of certificates off.
        msg = "nothing may follow the database's number: certificates go into STRATBOX_REDIS_CA_CERTS"
        raise ValueError(msg)
    if not parts.path.strip("/").isdecimal() and parts.path.strip("/"):
        msg = "what follows the last `/` is the number of the database"
        raise ValueError(msg)


def _check_sentinel(address: str) -> None:
    if not address.startswith(_SENTINEL):
        msg = "each address of a list begins with sentinel://"
        raise ValueError(msg)
    _check_address(address.replace(_SENTINEL, "redis://", 1))
    parts = urlsplit(address)
    if not parts.hostname or not parts.port:
        # Celery's two halves disagree on the default.
        msg = "each Sentinel needs a host and a port: sentinel://host:26379/0"
        raise ValueError(msg)


def _with_login_of_the_first(addresses: list[str]) -> str:
    """Repeat user, password and database, which are Redis' own, in each: kombu takes those of the address it tries."""
    parts = [urlsplit(address) for address in addresses]
    logins = [part.netloc.rpartition("@")[0] for part in parts]
    databases = [part.path.strip("/") for part in parts]
    if not ({*logins} <= {logins[0], ""} and {*databases} <= {databases[0], ""}):
        msg = "the first Sentinel's address carries user, password and database; the others repeat or omit them"
        raise ValueError(msg)
    login = f"{logins[0]}@" if logins[0] else ""
    hosts = [part.netloc.rpartition("@")[2] for part in parts]
    return ";".join(f"{_SENTINEL}{login}{host}/{databases[0] or 0}" for host in hosts)
