"""The command ``hypernodes run``: inputs from files, outputs to files."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from hypernodes.cli import main

SOURCE = """
import dataclasses
from hypernodes import Pipeline, node

@dataclasses.dataclass
class Size:
    letters: int

@node(output_name="size")
def measure(text, factor=1):
    if text == "bad":
        raise ValueError("a bad text")
    return Size(len(text) * factor)

@node(output_name="letters")
def letters(size):
    return size.letters

sizes = Pipeline([measure, letters], name="sizes")
power = Pipeline([node(pow, output_name="power")])
odd = Pipeline([node(lambda x: object(), output_name="thing")])

def make():
    return sizes

word = "no pipeline"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "written_here.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    import sys

    sys.modules.pop("written_here", None)


def command(*arguments, exit_code=0):
    done = CliRunner().invoke(main, ["run", *map(str, arguments)])
    assert done.exit_code == exit_code, done.output
    return done


def rows_of(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def test_run_reads_inputs_and_writes_outputs(here):
    (here / "in.json").write_text('{"text": "four", "factor": 2}')
    done = command("written_here:sizes", "--inputs", "in.json", "--quiet")
    assert json.loads(done.stdout) == {"size": {"letters": 8}, "letters": 8}
    done = command("written_here.py:make", "--set", "text=four", "--set", "factor=3", "--output", "letters")
    assert json.loads(done.stdout) == {"letters": 12}
    command("written_here:sizes", "--inputs", "in.json", "--out", "deep/out.json")
    assert rows_of(here / "deep" / "out.json") == {"size": {"letters": 8}, "letters": 8}


@pytest.mark.parametrize("given", ["in.json", "in.jsonl", "in.parquet"])
@pytest.mark.parametrize("out", ["out.json", "out.jsonl", "out.parquet"])
@pytest.mark.parametrize("executor", [None, "threaded"])
def test_a_file_of_rows_is_mapped_over(here, given, out, executor):
    texts = ["x" * (n % 7) for n in range(2500)]
    if given == "in.json":
        (here / given).write_text(json.dumps({"text": texts}))
    elif given == "in.jsonl":
        (here / given).write_text(
            "".join(json.dumps({"text": t, "id": n}) + "\n" for n, t in enumerate(texts))
        )
    else:
        pq.write_table(pa.table({"text": texts, "id": range(2500)}), here / given)
    where = [] if executor is None else ["--executor", executor, "--max-workers", "2"]
    command("written_here:sizes", "--inputs", given, "--map-over", "text", "--out", out, *where)
    assert [row["letters"] for row in rows_of(here / out)] == [len(text) for text in texts]
    assert rows_of(here / out)[6]["size"] == {"letters": 6}
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


def test_several_columns_are_zipped_or_multiplied(here):
    (here / "in.jsonl").write_text('{"base": 2, "exp": 3}\n\n{"base": 3, "exp": 2}\n')
    zipped = command("written_here:power", "--inputs", "in.jsonl", "--map-over", "base", "--map-over", "exp")
    assert zipped.stdout == '{"power": 8}\n{"power": 9}\n'
    product = command(
        "written_here:power",
        *("--inputs", "in.jsonl", "--map-over", "base", "--map-over", "exp", "--map-mode", "product"),
    )
    assert product.stdout == '{"power": 8}\n{"power": 4}\n{"power": 27}\n{"power": 9}\n'


def test_an_item_that_fails_sets_the_exit_code(here):
    given = ["written_here:sizes", "--set", 'text=["a", "bad", "ccc"]', "--map-over", "text"]
    done = command(*given, "--out", "out.jsonl", exit_code=1)
    assert "ValueError: a bad text\n  in node 'measure' of pipeline 'sizes', item 1" in done.stderr
    assert not (here / "out.jsonl").exists()
    done = command(*given, "--out", "out.parquet", "--on-error", "return", exit_code=1)
    assert "1 items failed" in done.stderr
    rows = rows_of(here / "out.parquet")
    assert [row["letters"] for row in rows] == [1, None, 3]
    assert [row["error"] for row in rows] == [None, "ValueError: a bad text", None]
    assert "Traceback" in command(*given, "--debug", exit_code=1).stderr


def test_the_option_cache_keeps_results(here):
    for _ in range(2):
        done = command(
            "written_here:sizes", "--set", 'text=["a", "b"]', "--map-over", "text", "--cache", "kept"
        )
    assert "⚡ 2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["written_here"], 2, "is not the place of a pipeline"),
        (["written_here:other"], 1, "has no 'other'. Its pipelines: 'sizes', 'power', 'odd'"),
        (["written_here:word"], 1, "is of type str, not Pipeline"),
        (["nowhere:sizes"], 1, "'nowhere' cannot be imported"),
        (["nowhere.py:sizes"], 1, "the file 'nowhere.py' does not exist"),
        (["written_here:sizes", "--set", "text"], 2, "Write NAME=VALUE"),
        (["written_here:sizes", "--set", "txt=a"], 1, "Did you mean 'text'?"),
        (["written_here:sizes", "--out", "out.csv"], 2, "the suffix must be one of .json, .jsonl, .parquet"),
        (["written_here:sizes", "--address", "a:1"], 2, "--address needs --executor ray"),
        (["written_here:sizes", "--max-workers", "2"], 2, "--max-workers needs an --executor"),
        (
            ["written_here:odd", "--set", "x=1"],
            1,
            "an output is of type object, which a file of values cannot hold",
        ),
        (["written_here:sizes", "--inputs", "rows.jsonl"], 2, "Name the columns that vary with --map-over"),
        (["written_here:sizes", "--inputs", "rows.jsonl", "--map-over", "tex"], 2, "no column 'tex'"),
        (
            ["written_here:sizes", "--inputs", "rows.jsonl", "--map-over", "text"],
            1,
            "line 2 is not valid JSON",
        ),
        (["written_here:sizes", "--inputs", "list.json"], 1, "holds a list"),
        (["written_here:sizes", "--inputs", "broken.json"], 1, "is not valid JSON"),
        (
            ["written_here:sizes", "--set", "text=a", "--executor", "ray", "--address", "127.0.0.1:1"],
            1,
            "nothing answers at '127.0.0.1:1'",
        ),
    ],
)
def test_wrong_arguments_and_files_are_errors_that_name_them(here, arguments, exit_code, message):
    (here / "rows.jsonl").write_text('{"text": "a"}\n{oh}\n')
    (here / "list.json").write_text("[1]")
    (here / "broken.json").write_text("{")
    assert message in command(*arguments, exit_code=exit_code).stderr
