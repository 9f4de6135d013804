"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "Dataset", "Seed", "Timeout", "User"]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Dataset = Annotated[str | None, typer.Option(help="What `dataset put` printed, in place of --data.", metavar="REF")]
Seed = Annotated[int | None, typer.Option(help="Seed of the global random generators, the same for each run.")]
Timeout = Annotated[float | None, typer.Option(help="Wall clock of each run, seconds, at most 60.")]
User = Annotated[str, typer.Option(help="Whose it is, a name of your choice.")]
