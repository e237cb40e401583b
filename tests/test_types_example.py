"""examples/types, as a newcomer runs it."""

import subprocess
import sys
from pathlib import Path

ORDERS = Path(__file__).parents[1] / "examples" / "types" / "orders.py"


def test_mistakes_are_found_before_anything_runs():
    ended = subprocess.run(
        [sys.executable, ORDERS], capture_output=True, encoding="utf-8", check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    not_made, not_run, total = ended.stdout.splitlines()
    assert "node 'look_up' returns float as 'price', but node 'add_cents' takes int as 'price'" in not_made
    assert "orders[1] is {'item': 'book', 'count': '1'}" in not_run
    assert total == "the sum is 15.0"
