"""Prints the table of settings that stands in the README, from the fields themselves; a test compares the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

from tasks.deepseek import DeepSeekSettings
from tasks.settings import Settings
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "STRATBOX_"


def rows(model: type[BaseModel]) -> Iterator[tuple[str, object, str]]:
    """Yield variable, default and description of every setting; a group's settings carry its name."""
    for name, field in model.model_fields.items():
        if not isinstance(field.default, BaseModel):
            yield field.alias or f"{PREFIX}{name}".upper(), field.default, field.description or ""
            continue
        for member, its_field in type(field.default).model_fields.items():
            if its_field.description:
                yield f"{PREFIX}{name}_{member}".upper(), its_field.default, its_field.description


def table() -> str:
    """Return the table as Markdown."""
    lines = ["| variable | default | what it sets |", "|---|---|---|"]
    for model in (Settings, WorkerSettings, DeepSeekSettings):
        for variable, default, description in rows(model):
            shown = "" if default is None or not str(default) else f"`{default}`"
            lines.append(f"| `{variable}` | {shown} | {description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
