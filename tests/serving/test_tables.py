"""What the dialects promise their clients: every row of a table names its tests."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = ("CLIENTS.md", "openai/REALTIME.md", "gpt_live/LIVE.md")


@pytest.mark.parametrize("table", TABLES)
def test_every_row_has_its_test(table):
    """The last column names tests, or how their names begin."""
    text = (ROOT / "duplex/serving" / table).read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    rows = [line.split(" | ")[-1] for line in text.splitlines() if line.startswith("| ")]
    named = [re.findall(r"`(test_\w+)`", row) for row in rows if row != "test |"]
    assert len(named) > 10
    for names in named:
        assert names and all(f"def {name}" in code for name in names), names
