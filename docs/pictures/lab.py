"""A notebook in JupyterLab, run and photographed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.error import URLError
from urllib.request import urlopen

from browser import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

WIDTH, HEIGHT, SCALE = 900, 1600, 1.5
PATIENCE: Final = 90  # seconds, for a server to start and for all cells to run
SETTINGS: Final = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # Else it may ask which kernel to take.
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
}
ATTEMPTS: Final = 3
ALL_RUN: Final = """() => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
    const failed = document.querySelector('.jp-OutputArea-output[data-mime-type$=error]')
    return failed || prompts.every(prompt => /\\d/.test(prompt.textContent))
}"""
FAULTS: Final = ".jp-mod-error, [data-mime-type$=stderr], [data-mime-type$=error]"


def photograph(notebook: Path, picture: Path, first: str, beyond: str) -> None:
    """Run a notebook, and take a picture of it from one heading up to another."""
    with served(notebook.parent) as (url, token), opened(WIDTH, HEIGHT, SCALE) as page:
        page.goto(f"{url}/doc/tree/{notebook.name}?token={token}")
        run_all(page)
        complain(page)
        page.wait_for_selector(".jupyter-widgets")
        page.get_by_role("heading", name=first).evaluate("found => found.scrollIntoView({block: 'start'})")
        page.wait_for_timeout(500)  # bars grow to their length
        panel = page.locator(".jp-NotebookPanel").bounding_box()
        end = page.get_by_role("heading", name=beyond).bounding_box()
        if panel is None or end is None:
            raise RuntimeError(f"the notebook shows no heading {beyond!r}")
        width, height = panel["width"] - 2, end["y"] - panel["y"] - 16
        page.screenshot(path=picture, clip={**panel, "width": width, "height": height})


def run_all(page: Page) -> None:
    """Run all cells as a reader does, and wait for the last one."""
    from playwright.sync_api import TimeoutError  # noqa: A004

    # What is run before there is a kernel is not run at all.
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=1000 * PATIENCE)
    for attempt in range(1, ATTEMPTS + 1):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        try:
            page.wait_for_function(ALL_RUN, timeout=1000 * PATIENCE / ATTEMPTS)
        except TimeoutError:  # on a busy machine a kernel says that it is idle before it hears anything
            if attempt == ATTEMPTS:
                raise
        else:
            return


def complain(page: Page) -> None:
    """Raise if a cell has failed, or has written to standard error."""
    faults = page.locator(FAULTS).all_inner_texts()
    if faults:
        raise RuntimeError("the notebook has not run as it should:\n" + "\n".join(faults))


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, str]]:
    """Serve a copy of a folder by a JupyterLab of its own; give its address and its token."""
    token = secrets.token_hex()
    with tempfile.TemporaryDirectory() as name:
        own = Path(name)
        shutil.copytree(folder, own / "notebooks")
        for plugin, settings in SETTINGS.items():
            file = own / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings), encoding="utf-8")
        environment = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": str(own / "config"),
            "JUPYTER_DATA_DIR": str(own / "data"),
            "JUPYTER_RUNTIME_DIR": str(own / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
            "IPYTHONDIR": str(own / "ipython"),
            "JUPYTER_TOKEN": token,
        }
        with (own / "log").open("w+b") as log:
            server = subprocess.Popen(  # noqa: S603
                [
                    *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
                    *("--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={own / 'notebooks'}"),
                ],
                env=environment,
                stdout=log,
                stderr=log,
            )
            try:
                yield address(server, own), token
            finally:
                server.terminate()
                server.wait()


def address(server: subprocess.Popen[bytes], own: Path) -> str:
    """Wait until a server answers, and return where."""
    told = own / "runtime" / f"jpserver-{server.pid}.json"
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        if told.exists() and (text := told.read_text(encoding="utf-8")).endswith("}"):
            url = f"http://127.0.0.1:{json.loads(text)['port']}"
            with suppress(URLError), urlopen(f"{url}/api"):  # noqa: S310
                return url
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab has not started:\n{(own / 'log').read_text(encoding='utf-8')}")
