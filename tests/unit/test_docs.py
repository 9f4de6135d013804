"""What the documents say and the code knows must be the same."""

from __future__ import annotations

from pathlib import Path

from settings_table import table

ROOT = Path(__file__).resolve().parents[2]


def test_readme_has_the_settings_as_they_are() -> None:
    """The README's table of settings is what `ops/settings_table.py` prints."""
    assert table() in (ROOT / "README.md").read_text()
