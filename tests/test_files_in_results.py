"""Results that are files: an entry whose file is gone, or has other content, is a miss."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import hypernodes
from hypernodes import DiskCache, File, HyperNodesEngine, Pipeline, node


@dataclass
class Report:
    title: str
    file: File


FORMS = {
    "alone": lambda file: file,
    "a list": lambda file: ["first", file],
    "a dictionary": lambda file: {"file": {"inner": file}},
    "a dataclass": lambda file: Report("one", file),
    "a tuple in a set": lambda file: {(1, file)},
}

ENGINES = {
    "sequential": HyperNodesEngine,
    "threaded": lambda: HyperNodesEngine(node_executor="threaded"),
    "parallel": lambda: HyperNodesEngine(map_executor="parallel"),
    "daft": hypernodes.DaftEngine,
}

CHANGES = {
    "deleted": Path.unlink,
    "rewritten": lambda path: path.write_text("other" + path.read_text()[5:]),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


def only_file(value):
    match value:
        case File():
            return value
        case Report():
            return value.file
        case dict():
            return only_file(next(iter(value.values())))
        case set():
            return only_file(next(iter(value)))
        case list() | tuple():
            return only_file(value[-1])


@pytest.fixture
def pipeline(tmp_path):
    """A node that writes a file for each item, and one that reads it; each call is noted in a file."""
    calls = tmp_path / "calls"
    calls.touch()

    def made(engine, form):
        def write(x, home):
            with calls.open("a") as log:
                log.write("w")
            path = Path(home) / f"{x}.txt"
            if path.is_dir():
                path.rmdir()
            path.write_text(f"value {x}")
            return form(File(path))

        def read(written):
            with calls.open("a") as log:
                log.write("r")
            return Path(only_file(written)).read_text()

        nodes = [node(write, output_name="written"), node(read, output_name="text")]
        return Pipeline(nodes, engine=engine, cache=DiskCache(tmp_path / "cache")).bind(home=str(tmp_path))

    def called():
        noted = sorted(calls.read_text())
        calls.write_text("")
        return "".join(noted)

    return made, called


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("form", FORMS)
def test_an_entry_whose_file_has_changed_is_a_miss(pipeline, tmp_path, form, change):
    made, called = pipeline
    of_form = made(HyperNodesEngine(), FORMS[form])
    of_form.run({"x": 1})
    assert called() == "rw"
    assert of_form.run({"x": 1})["text"] == "value 1"
    assert called() == ""
    CHANGES[change](tmp_path / "1.txt")
    results = of_form.run({"x": 1})
    assert Path(only_file(results["written"])).read_text() == results["text"] == "value 1"
    assert called() == "w"  # The text was made of the right content, and is known.
    of_form.run({"x": 1})
    assert called() == ""


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_computed_of_a_file_never_belongs_to_other_content(pipeline, tmp_path, engine):
    made, called = pipeline
    engine = ENGINES[engine]()
    mapping = made(engine, FORMS["a list"])
    xs = {"x": [1, 2, 3]}
    mapping.map(xs, map_over="x", output_name="written")
    assert called() == "www"
    (tmp_path / "2.txt").write_text("a lie")
    assert mapping.map(xs, map_over="x", output_name="text")["text"] == ["value 1", "value 2", "value 3"]
    assert called() == "rrrw"
    assert mapping.map(xs, map_over="x")["text"] == ["value 1", "value 2", "value 3"]
    assert called() == ""
    engine.shutdown()


def test_a_file_that_was_touched_is_a_hit_and_one_that_was_moved_is_not(pipeline, tmp_path):
    made, called = pipeline
    of_form = made(HyperNodesEngine(), FORMS["alone"])
    of_form.run({"x": 1})
    called()
    (tmp_path / "1.txt").touch()
    of_form.run({"x": 1})
    assert called() == ""
    shutil.move(tmp_path / "1.txt", tmp_path / "moved.txt")
    of_form.run({"x": 1})
    assert called() == "w"


def test_an_entry_with_a_changed_file_is_no_damage(pipeline, tmp_path):
    made, _ = pipeline
    of_form = made(HyperNodesEngine(), FORMS["alone"])
    of_form.run({"x": 1})
    (tmp_path / "1.txt").unlink()
    with DiskCache(tmp_path / "cache") as cache:
        assert cache.verify().damaged == {}
    of_form.run({"x": 1})  # There is no warning, which would be an error here.
