"""Print constraints for pip: the lowest versions of what users install that ``pyproject.toml`` allows.

``make test-lowest`` installs these. Tools for development are not among them: they are the newest ones.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

EXTRAS = ("examples", "notebook", "progress", "remote", "telemetry", "viz")


def lowest(requirement: str) -> str:
    """Return the constraint that pins a requirement such as ``ray[default]>=2.50,<3`` to its lower bound."""
    name, bound = re.match(r"([\w.-]+)(?:\[.*?\])?>=([\w.]+)", requirement).groups()
    return f"{name}=={bound}"


def main() -> None:
    project = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text())["project"]
    extras = [each for extra in EXTRAS for each in project["optional-dependencies"][extra]]
    print("\n".join(sorted({lowest(each) for each in project["dependencies"] + extras})))


if __name__ == "__main__":
    main()
