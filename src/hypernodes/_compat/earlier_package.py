"""The earlier library of the same import name, which is on PyPI as `hypernodes`."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path


def warn_of_earlier_package(own_version: str) -> None:
    """Warn if it is installed beside this one.

    Why: both have a package ``hypernodes``, so that the one installed later has replaced files of the other.
    `importlib.metadata` is not asked, since importing it takes longer than all of this package.
    When the distribution ``hypernodes`` on PyPI is this library: this module is not needed any longer.
    """
    for directory in dict.fromkeys(sys.path):
        for path in Path(directory).glob("hypernodes-*.dist-info"):
            found = re.fullmatch(r"hypernodes-(\d[^-]*)\.dist-info", path.name)
            if found is not None and found[1] != own_version:
                warnings.warn(
                    f"hypernodes {found[1]}, an earlier library, is installed beside hypernodes-ray, and "
                    f"both have the package 'hypernodes'. Some of its files may be those of the other one. "
                    f"Install only one: pip uninstall hypernodes hypernodes-ray, then pip install "
                    f"hypernodes-ray",
                    stacklevel=3,
                )
