"""Warnings about what a user has written, at the line that has called the library."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Final

_PACKAGE: Final = f"{Path(__file__).parent}{os.sep}"


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that is not of this package, however deep the call is."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
