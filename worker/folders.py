"""Folders that a worker's processes share: made by the main one before it forks, removed by the reaper, the last."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SharedFolder"]


@dataclass(frozen=True)
class SharedFolder:
    """A folder for temporary files of a worker."""

    #: By this environment variable the processes know where it is.
    variable: str
    #: Its name begins so.
    prefix: str

    def path(self) -> Path | None:
        """Return the folder that a worker of ours made, not one that somebody else has set."""
        folder = Path(os.environ.get(self.variable, ""))
        return folder if folder.name.startswith(self.prefix) and folder.is_dir() else None

    def remove(self) -> None:
        """Remove it, where there is one."""
        if folder := self.path():
            shutil.rmtree(folder, ignore_errors=True)
