"""Where the model is that writes strategies, and what it may cost, from `STRATBOX_DEEPSEEK_*` variables."""

from __future__ import annotations

import re

import httpx2
from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["DeepSeekSettings"]

PREFIX = "STRATBOX_DEEPSEEK_"
MAX_PORT = 65_535
#: A name, each part as long as DNS has it, or an address; what else a URL may hold no resolver takes.
_HOST = re.compile(r"(?=.{1,253}$)[\w-]{1,63}(\.[\w-]{1,63})*\.?|[0-9a-fA-F.]*:[0-9a-fA-F:.]*")


class DeepSeekSettings(BaseSettings):
    """DeepSeek, or any endpoint that speaks the chat-completions protocol of OpenAI."""

    model_config = SettingsConfigDict(
        alias_generator=lambda field: f"{PREFIX}{field}".upper(),
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        # As compose files set what is not set; the key's other name is read then.
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    api_key: SecretStr = Field(
        default=SecretStr(""),
        validation_alias=AliasChoices(f"{PREFIX}API_KEY", "DEEPSEEK_API_KEY"),
        description="Key of the API; `DEEPSEEK_API_KEY` is read as well.",
    )
    base_url: str = Field(
        default="https://api.deepseek.com", description="The endpoint, any that speaks OpenAI's chat completions."
    )
    #: The names deepseek-chat and deepseek-reasoner were given up by DeepSeek in July 2026.
    model: str = Field(default="deepseek-v4-flash", min_length=1, description="Name of the model there.")
    stream: bool = Field(default=True, description="Whether replies come as they are written.")
    max_tokens: int = Field(
        default=32_768, ge=256, description="Tokens of one reply at most, those of its reasoning included."
    )
    token_budget: int = Field(
        default=200_000, ge=1024, description="Tokens of all attempts at a strategy together, prompts included."
    )
    timeout_seconds: float = Field(
        default=300.0, gt=0, le=3600, description="How long one reply may take, tries again included."
    )
    deadline_seconds: float = Field(
        default=900.0, gt=0, le=86_400, description="How long all attempts at a strategy may take, runs included."
    )
    retries: int = Field(
        default=2, ge=0, le=10, description="How often a call that the endpoint failed is tried again."
    )

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        try:
            parts = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError):
            parts = httpx2.URL()
        named = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.host)
        if not named or not (parts.port is None or 0 < parts.port <= MAX_PORT):
            msg = "not an address like https://api.deepseek.com"
            raise ValueError(msg)
        if any(mark in url for mark in "@?#;"):
            msg = "holds a login or a query: addresses get into logs, so give the key as STRATBOX_DEEPSEEK_API_KEY"
            raise ValueError(msg)
        return url

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, key: SecretStr) -> SecretStr:
        # What is no header would be refused by the HTTP library, whose message repeats it.
        if any(not "!" <= char <= "~" for char in key.get_secret_value()):
            msg = "holds a space or another character that no key has"
            raise ValueError(msg)
        return key
