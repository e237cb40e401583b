"""Install the wheel in an empty environment, outside of the checkout, and use it there: `make wheel`.

python tests/wheel.py dist
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def main() -> None:
    """Install the wheel and the source distribution of a directory, one after the other, and try both."""
    dist = Path(sys.argv[1]).resolve()
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert snippets
    for package in (*dist.glob("*.whl"), *dist.glob("*.tar.gz")):
        with tempfile.TemporaryDirectory() as directory:
            venv.create(f"{directory}/venv", with_pip=True)
            python = f"{directory}/venv/bin/python"

            def run(*command: str, where: str = directory) -> str:
                done = subprocess.run(command, cwd=where, check=True, capture_output=True, text=True)
                return done.stdout

            run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(package))
            assert "Usage: hypernodes" in run(f"{directory}/venv/bin/hypernodes", "--help")
            print(f"{package.name}:\n{run(python, '-W', 'error', '-c', ''.join(snippets))}", end="")
            types = f"{directory}/venv/lib/*/site-packages/hypernodes/py.typed"
            assert list(Path("/").glob(types.lstrip("/"))), "py.typed is missing"


if __name__ == "__main__":
    main()
