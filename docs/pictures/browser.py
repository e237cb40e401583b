"""The browser that photographs pages."""

from __future__ import annotations

import atexit
import shutil
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page, ViewportSize

CHROMIUM: Final = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
OFFLINE: Final = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@cache
def browser() -> Browser:
    """Start the browser, for all pictures of this process."""
    from playwright.sync_api import sync_playwright

    playwright = sync_playwright().start()
    atexit.register(playwright.stop)
    return playwright.chromium.launch(executable_path=CHROMIUM, args=list(OFFLINE))


@contextmanager
def opened(width: int, height: int, scale: float = 1.0) -> Iterator[Page]:
    """Open an empty page of a size, and close it in the end."""
    size: ViewportSize = {"width": width, "height": height}
    page = browser().new_page(viewport=size, device_scale_factor=scale, color_scheme="light")
    try:
        yield page
    finally:
        page.close()
