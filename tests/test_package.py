"""What holds for the package as a whole: its names, its imports, its options, and who calls nodes."""

import ast
import asyncio
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from recorder import Recorder

import hypernodes
from hypernodes import HyperNodesEngine, Pipeline, node
from hypernodes.execution.plan.build import build_plan
from hypernodes.execution.plan.needs import COMPILED, COMPILED_ON_LOOP, SILENT
from hypernodes.execution.plan.placement import Placement
from hypernodes.options import DEFAULTS, RESOURCE_OPTIONS, NodeOptions, NodeOptionValues

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


def test_the_version_is_the_one_of_the_distribution():
    from importlib.metadata import version

    assert version("hypernodes-ray") == hypernodes.__version__


def test_the_earlier_library_of_the_same_name_is_told_of_at_import(tmp_path):
    (tmp_path / "hypernodes-0.4.8.dist-info").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(tmp_path)!r}); import hypernodes"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "hypernodes 0.4.8, an earlier library, is installed beside hypernodes-ray" in done.stderr


# ------------------------------------------------------------------------- who calls the functions of nodes


def functions_of_nodes(tree):
    """Return the expressions of a module that are the function or the batch function of a node."""
    found = {
        ast.unparse(part)
        for part in ast.walk(tree)
        if isinstance(part, ast.Attribute) and part.attr in ("function", "batch")
    } - {"daft.func.batch"}
    assigned = {
        ast.unparse(target)
        for part in ast.walk(tree)
        if isinstance(part, ast.Assign | ast.AnnAssign) and part.value and ast.unparse(part.value) in found
        for target in (part.targets if isinstance(part, ast.Assign) else [part.target])
    }
    return found | assigned


def calls_of_nodes(path):
    """Yield the calls in a module that call the function of a node, bind its arguments, or execute source."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = functions_of_nodes(tree)
    for part in ast.walk(tree):
        if isinstance(part, ast.Call):
            called = ast.unparse(part.func)
            bound = (
                ast.unparse(part.args[0]) if called in ("partial", "functools.partial") and part.args else ""
            )
            if called in functions or bound in functions or called == "exec":
                yield called


def test_the_modules_that_call_the_functions_of_nodes_are_known():
    """A new way to call nodes must obey all options of a node, so that it is added here on purpose."""
    calling = {
        path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if list(calls_of_nodes(path))
    }
    assert calling == {
        "execution/calls/call.py",  # binds the function and its arguments, with retries and timeouts
        "execution/calls/batch.py",  # binds the batch function, likewise
        "execution/calls/failed_call.py",  # makes a failed call again, when a user asks for it
        "execution/compiled/source.py",  # runs the code that it has written of a plan
        "node.py",  # Node.__call__, for a user who calls a node without a pipeline
    }


def caller_of(frame):
    """Return the innermost module of the package among the callers of a node's function."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<plan of"):
            return "compiled plan"
        if Path(name).is_relative_to(SOURCE):
            return Path(name).relative_to(SOURCE).as_posix()
        frame = frame.f_back
    return None


@node(output_name="caller", cache=False)
def see_caller(x):
    return caller_of(sys._getframe(1))


@node(output_name="caller", cache=False)
async def see_caller_async(x):
    return caller_of(sys._getframe(1))


@node(output_name="caller", cache=False, batch=lambda x: [caller_of(sys._getframe(1))] * len(x))
def see_caller_batch(x):
    return "the function"


@pytest.mark.parametrize("executor", ["sequential", "async", "threaded"])
@pytest.mark.parametrize("callbacks", [[], [Recorder()]], ids=["unwatched", "watched"])
@pytest.mark.parametrize("step", [see_caller, see_caller_async, see_caller_batch], ids=lambda step: step.name)
def test_functions_are_called_by_the_modules_of_calls_or_by_compiled_plans(step, callbacks, executor):
    callers = set()
    for level in ("node_executor", "map_executor"):
        with HyperNodesEngine(**{level: executor}) as engine:
            pipeline = Pipeline([step], engine=engine, callbacks=callbacks)
            callers.add(pipeline.run({"x": 1})["caller"])
            callers |= set(pipeline.map({"x": [1, 2]}, "x")["caller"])
            callers.add(asyncio.run(pipeline.arun({"x": 1}))["caller"])
    allowed = {"compiled plan", "the function"}
    assert {name for name in callers - allowed if not name.startswith("execution/calls/")} <= {
        "executors/loops.py"  # awaits the coroutine that a call has returned
    }


# ---------------------------------------------------------------------- the page about the architecture

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")

FUNCTIONS = re.findall(r"`([\w/]+\.py)`, `(?:[A-Z]\w+\.)?(\w+)`", ARCHITECTURE)


def file_named(path):
    """Return the file that the page means, which leaves out the package, and within `execution` that, too."""
    places = (SOURCE / "execution", SOURCE, ROOT)
    return next((place / path for place in places if (place / path).is_file()), None)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"[\w/]+\.py\b", ARCHITECTURE))))
def test_every_file_that_the_architecture_page_names_is_there(path):
    assert file_named(path) is not None


@pytest.mark.parametrize(("path", "name"), FUNCTIONS)
def test_every_function_that_the_architecture_page_names_is_in_its_file(path, name):
    defined = rf"^ *(async def|def|class) {name}\b|^{name}\b"
    assert re.search(defined, file_named(path).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_module_in_the_list_of_ways_to_execute_a_node_is_there():
    from hypernodes.execution import execute

    ways = re.findall(r"^    [a-z ]+?  +([a-z.]+)  +\S", execute.__doc__, re.MULTILINE)
    assert len(ways) == 8
    for module in ways:
        path = SOURCE / "execution" / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), module


LISTED = re.compile(r"^(\w+)  +\S", re.MULTILINE)
PACKAGES = [
    path.parent
    for path in SOURCE.rglob("__init__.py")
    if len(LISTED.findall(path.read_text(encoding="utf-8").partition("from __future__")[0])) > 3
]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_package_that_lists_its_modules_lists_all_of_them(package):
    listed = LISTED.findall((package / "__init__.py").read_text(encoding="utf-8"))
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/*.py")
    }
    assert sorted(listed) == sorted(modules - {"__init__"})


# ---------------------------------------------------------------------------------------- options of nodes

CHANGED_OPTIONS = {
    "cache": False,
    "cache_version": 2,
    "readonly": True,
    "retries": 1,
    "retry_on": OSError,
    "retry_delay": 2.0,
    "max_concurrent": 3,
    "rate": "18/s",
    "timeout": 5.0,
    "resources": {"num_gpus": 1},
    "batch": lambda x: x,
}
"""A value for each option that is not its default; for resources, the keywords of `node(...)`."""


def needs_of(**options):
    """Return what a plan needs that calls a node with these options."""
    pipeline = Pipeline([node(lambda x: x, output_name="y", **options)])
    return build_plan(pipeline, ("x",), None, Placement(), mapped=False).plan.needs


def test_the_keywords_of_node_and_the_fields_of_its_options_agree():
    keywords = set(NodeOptionValues.__annotations__)
    assert set(RESOURCE_OPTIONS) <= keywords
    assert (keywords - set(RESOURCE_OPTIONS)) | {"resources"} == set(NodeOptions.__dataclass_fields__)


@pytest.mark.parametrize("name", sorted(NodeOptionValues.__annotations__))
def test_every_option_is_described_by_the_docstring_of_node(name):
    assert re.search(rf"^ +{name}: ", node.__doc__, re.MULTILINE)  # Python 3.13 takes the indentation away


@pytest.mark.parametrize("name", sorted(NodeOptions.__dataclass_fields__))
def test_every_option_can_be_read_from_the_node(name):
    assert getattr(node(abs, output_name="y"), name) == getattr(DEFAULTS, name)


@pytest.mark.parametrize("name", sorted(NodeOptions.__dataclass_fields__))
def test_an_option_that_is_set_is_a_need_of_the_plan_unless_it_is_silent(name):
    """A path that does not support an option by name does not execute a node that sets it."""
    changed = CHANGED_OPTIONS[name]
    needs = needs_of(**(changed if name == "resources" else {"retries": 0, name: changed}))
    assert needs - needs_of() == (set() if name in SILENT else {name})


def test_compiled_plans_do_not_execute_nodes_with_retries_or_timeouts():
    for needs in (needs_of(retries=1), needs_of(timeout=5.0)):
        assert not needs <= COMPILED
        assert not needs <= COMPILED_ON_LOOP


def test_what_a_plan_supports_is_an_option_or_a_known_need():
    """A name that is misspelled in the list of what a path supports would be no protection."""
    from hypernodes.execution.plan import needs

    known = {value for name, value in vars(needs).items() if name.isupper() and isinstance(value, str)}
    for supported in (needs.COMPILED, needs.COMPILED_ON_LOOP, needs.STAGES, needs.SILENT):
        assert supported <= known | set(NodeOptions.__dataclass_fields__)


@pytest.mark.parametrize(
    ("keyword", "suggestion"), [("retrys", "'retries'"), ("timout", "'timeout'"), ("chache", "'cache'")]
)
def test_an_unknown_keyword_of_node_is_a_type_error_that_suggests_an_option(keyword, suggestion):
    message = rf"node\(\) got an unexpected keyword argument '{keyword}'. Did you mean {suggestion}"
    with pytest.raises(TypeError, match=message):
        node(**{keyword: 2})
    with pytest.raises(TypeError, match=message):
        node(abs, **{keyword: 2})
