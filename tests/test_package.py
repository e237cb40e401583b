"""What the package promises as a whole: its names, its imports, its floors."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hypernodes

SOURCE = Path(hypernodes.__file__).parent
HEAVY = {
    "ray",
    "daft",
    "diskcache",
    "networkx",
    "numpy",
    "rich",
    "plotly",
    "opentelemetry",
    "ipywidgets",
    "pandas",
    "cloudpickle",
    "nest_asyncio",
}


def test_all_names_what_is_public_and_nothing_else():
    public = {
        name
        for name, value in vars(hypernodes).items()
        if name[0] != "_" and not isinstance(value, ModuleType)
    }
    assert set(hypernodes.__all__) == (public | set(hypernodes._LAZY)) - {"TYPE_CHECKING", "annotations"}


@pytest.mark.parametrize("name", hypernodes.__all__)
def test_every_public_name_is_there_and_explained(name):
    found = getattr(hypernodes, name)
    assert not callable(found) or found.__doc__


def test_the_executors_package_hands_on_the_engines():
    from hypernodes import executors

    assert executors.HyperNodesEngine is hypernodes.HyperNodesEngine
    assert executors.Engine is hypernodes.Engine


def test_importing_the_package_loads_no_heavy_library():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, hypernodes; print(*{name.partition('.')[0] for name in sys.modules})",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert HEAVY & set(done.stdout.split()) == set()


def test_exactly_one_module_calls_the_functions_of_nodes():
    """Whatever calls a step's function, or writes code that does, stands in ``execution/invoke.py``."""
    calling = set()
    for path in SOURCE.rglob("*.py"):
        for found in ast.walk(ast.parse(path.read_text())):
            calls = isinstance(found, ast.Call) and isinstance(found.func, ast.Attribute)
            if calls and found.func.attr == "function" and ast.unparse(found.func.value) == "step":
                calling.add(path.name)
            if isinstance(found, ast.Call) and ast.unparse(found.func) == "exec":
                calling.add(path.name)
    assert calling == {"invoke.py"}


def test_the_version_is_the_one_of_the_distribution():
    from importlib.metadata import version

    assert version("hypernodes") == hypernodes.__version__
