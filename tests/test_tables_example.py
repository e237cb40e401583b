"""examples/tables, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

TABLES = Path(__file__).parents[1] / "examples" / "tables" / "main.py"


def test_tables_get_the_outputs_as_columns():
    done = subprocess.run([sys.executable, TABLES], capture_output=True, encoding="utf-8", timeout=100)
    assert done.returncode == 0, done.stderr
    pandas, polars, arrow = done.stdout.split("\n\n")
    assert pandas.splitlines()[1].split() == ["one", "a", "longer", "text", "7", "longer", "NaN"]
    assert "ValueError: max() " in pandas.splitlines()[3]
    assert '["a", "longer", "text"]' in polars
    assert arrow.startswith(
        "[{'text': 'a longer text', 'page': 7, 'words': ['a', 'longer', 'text'], 'longest'"
    )
