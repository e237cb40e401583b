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

exits = Pipeline([node(lambda x: __import__("sys").exit(0), output_name="never")])

def make():
    return sizes

async def later():
    return sizes

def takes(word, times=2):
    raise AssertionError("called")

def fails():
    return {}["settings"]

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


FORMS = ("json", "jsonl", "parquet")


@pytest.mark.parametrize(
    ("given", "out", "executor"),
    [
        *(
            (f"in.{given}", f"out.{out}", None)
            for given, out in zip(FORMS, (*FORMS[1:], FORMS[0]), strict=True)
        ),
        *((f"in.{form}", f"out.{form}", "threaded") for form in FORMS),
    ],
)
def test_a_file_of_rows_is_mapped_over(here, given, out, executor):
    texts = ["x" * (n % 7) for n in range(2100)]
    if given == "in.json":
        (here / given).write_text(json.dumps({"text": texts}))
    elif given == "in.jsonl":
        (here / given).write_text(
            "".join(json.dumps({"text": t, "id": n}) + "\n" for n, t in enumerate(texts))
        )
    else:
        pq.write_table(pa.table({"text": texts, "id": range(2100)}), here / given)
    where = [] if executor is None else ["--executor", executor, "--max-workers", "2"]
    command("written_here:sizes", "--inputs", given, "--map-over", "text", "--out", out, *where)
    assert [row["letters"] for row in rows_of(here / out)] == [len(text) for text in texts]
    assert rows_of(here / out)[6]["size"] == {"letters": 6}
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


def test_several_columns_are_zipped_or_multiplied(here):
    (here / "in.jsonl").write_text('{"base": 2, "exp": 3}\n\n{"base": 3, "exp": 2}\n')
    zipped = command("written_here:power", "--inputs", "in.jsonl", "--map-over", "base", "--map-over", "exp")
    assert zipped.stdout == '{"index": 0, "power": 8}\n{"index": 1, "power": 9}\n'
    product = command(
        "written_here:power",
        *("--inputs", "in.jsonl", "--map-over", "base", "--map-over", "exp", "--map-mode", "product"),
    )
    assert [json.loads(line)["power"] for line in product.stdout.splitlines()] == [8, 4, 27, 9]


def test_an_item_that_fails_sets_the_exit_code(here):
    given = ["written_here:sizes", "--set", 'text=["a", "bad", "ccc"]', "--map-over", "text"]
    done = command(*given, "--out", "out.jsonl", exit_code=1)
    assert "ValueError: a bad text\n  in node 'measure' of pipeline 'sizes', item 1" in done.stderr
    assert not (here / "out.jsonl").exists()
    done = command(*given, "--out", "out.parquet", "--on-error", "return", exit_code=3)
    assert "1 items failed, 2 did not. The first, item 1: ValueError: a bad text" in done.stderr
    command(*given, "--on-error", "return", "--failed-exit-code", "0")
    rows = rows_of(here / "out.parquet")
    assert [row["letters"] for row in rows] == [1, None, 3]
    assert [row["error"] for row in rows] == [None, "ValueError: a bad text", None]
    assert [row["input"] for row in rows] == [None, {"text": "bad"}, None]
    assert "Traceback" in command(*given, "--debug", exit_code=1).stderr


def test_the_option_cache_keeps_results(here):
    for _ in range(2):
        done = command(
            "written_here:sizes", "--set", 'text=["a", "b"]', "--map-over", "text", "--cache", "kept"
        )
    assert "⚡ 2" in done.stderr


def test_the_option_remote_keeps_results_beyond_the_directory(here):
    pytest.importorskip("obstore")
    text, remote = ("--set", 'text=["a", "b"]', "--map-over", "text"), (here / "tier").as_uri()
    first = command("written_here:sizes", *text, "--cache", "first", "--remote", remote)
    assert "⚡" not in first.stderr
    second = command("written_here:sizes", *text, "--cache", "second", "--remote", remote)
    assert "⚡ 2" in second.stderr


@pytest.mark.parametrize("name", ["run", "submit"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--remote", "s3://bucket/a"], "--remote needs --cache, the directory"),
        (["--cache", "kept", "--remote", "bucket"], "'bucket' is not an address of a bucket"),
        (["--map-mode", "product"], "--map-mode product needs --map-over"),
    ],
)
def test_an_option_without_the_one_that_it_belongs_to_is_an_error_before_anything_runs(
    here, name, options, message
):
    done = CliRunner().invoke(main, [name, "written_here:sizes", *options])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (
            ["written_here:sizes", "--set", "text=a", "--on-error", "return"],
            2,
            "--on-error return needs rows",
        ),
        (["written_here:sizes", "--working-dir", "."], 2, "--working-dir needs --executor ray"),
        (
            ["written_here:sizes", "--executor", "sequential", "--max-workers", "2"],
            2,
            "--max-workers needs an --executor that has workers",
        ),
        (["written_here"], 2, "is not the place of a pipeline"),
        (["written_here:other"], 1, "has no 'other'. Its pipelines: 'sizes', 'power', 'odd'"),
        (["written_here:word"], 1, "is of type str, not Pipeline"),
        (["nowhere:sizes"], 1, "'nowhere' cannot be imported"),
        (["nowhere.py:sizes"], 1, "the file 'nowhere.py' does not exist"),
        (["written_here:sizes", "--set", "text"], 2, "Write NAME=VALUE"),
        (["written_here:sizes", "--set", "txt=a"], 1, "Did you mean 'text'?"),
        (
            ["written_here:sizes", "--out", "out.txt"],
            2,
            "the suffix must be one of .json, .jsonl, .csv, .parquet",
        ),
        (
            ["written_here:measure"],
            1,
            "is a node, not a pipeline. Make a pipeline of it: Pipeline([measure])",
        ),
        (["written_here:takes"], 1, "is a function that takes arguments: takes(word, times=2)"),
        (["written_here:fails"], 1, "'written_here:fails' has made no pipeline: KeyError: 'settings'"),
        (["written_here:later"], 1, "is an async or a generator function"),
        (["os:system"], 1, "'os:system' is of type builtin_function_or_method, not Pipeline"),
        (["os:getcwd"], 1, "not Pipeline"),
        (["broken.py:sizes"], 1, "broken.py, line 2: invalid syntax"),
        (["raising.py:sizes"], 1, "'raising' cannot be imported: ZeroDivisionError: division by zero"),
        (["exiting.py:sizes"], 1, "'exiting' cannot be imported: SystemExit: 7"),
        (["json.py:sizes"], 1, "since "),
        ([".here:sizes"], 2, "is not the place of a pipeline"),
        ([":sizes"], 2, "is not the place of a pipeline"),
        (["written_here:odd", "--set", "x=1", "--keep", "x"], 2, "--keep needs rows"),
        (["written_here:sizes", "--file", "tex"], 2, "Did you mean 'text'?"),
        (["written_here:sizes", "--inputs", "table.csv"], 2, "no column of table.csv is an input"),
        (["written_here:sizes", "--inputs", "rows.jsonl", "--keep", "id"], 2, "has no column 'id'"),
        (["written_here:sizes", "--inputs", "twice.csv"], 1, "two columns of the same name: 'text'"),
        (["written_here:sizes", "--inputs", "broken.parquet"], 1, "ArrowInvalid"),
        (["written_here:exits", "--set", "x=1"], 1, "SystemExit: 0"),
        (["written_here:sizes", "--address", "a:1"], 2, "--address needs --executor ray"),
        (["written_here:sizes", "--max-workers", "2"], 2, "--max-workers needs an --executor"),
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
            "at '127.0.0.1:1'",  # nothing answers there, or this process is connected to another cluster
        ),
    ],
)
def test_wrong_arguments_and_files_are_errors_that_name_them(here, arguments, exit_code, message):
    (here / "rows.jsonl").write_text('{"text": "a"}\n{oh}\n')
    (here / "list.json").write_text("[1]")
    (here / "broken.json").write_text("{")
    (here / "broken.py").write_text("sizes = 1\nsizes = = 2\n")
    (here / "raising.py").write_text("1 / 0")
    (here / "exiting.py").write_text("import sys; sys.exit(7)")
    (here / "json.py").write_text("sizes = 1")
    (here / "table.csv").write_text("id\n1\n")
    (here / "twice.csv").write_text("text,text\na,b\n")
    (here / "broken.parquet").write_text("no table")
    done = command(*arguments, exit_code=exit_code)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error: ")]) == 1


# ------------------------------------------------------------------------------------ rows in, rows out


FILES = """
import datetime as dt, decimal, enum, os, uuid
from pathlib import Path
from typing import Annotated, Optional
import numpy as np
import pandas as pd
from hypernodes import File, Pipeline, node

@node(output_name="size")
def size_of(document: File):
    return f"{type(document).__name__} {len(Path(document).read_text())}"

@node(output_name="kind")
def kind_of(value):
    return type(value).__name__

@node(output_name="sum")
def add(a: int, b: float = 0.5, c: "int | None" = None, label: str = "x"):
    return f"{a!r} {b!r} {c!r} {label!r}"

class Color(enum.Enum):
    RED = 1

class Odd:
    def __repr__(self): return "<odd>"

VALUES = [
    1, 2.5, "text", None, True, b"\\xff", 2**70, Odd(), {1: "a"}, {1: "a", "1": "b"}, {}, [], [1, "a"],
    (1, None), dt.datetime(2020, 1, 2, 3), dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
    dt.time(3), dt.timedelta(seconds=3), decimal.Decimal("1.10"), uuid.UUID(int=1), Color.RED,
    np.float32(1.5), np.arange(3), np.array(["2020-01-01"], dtype="datetime64[ns]"), pd.NaT,
    pd.Timestamp("2020-01-01"), pd.DataFrame({"a": [1]}), pd.Series([1, 2]), "half \\ud800",
    ValueError("no"), Path("a/b"), {"a": {"b": Odd()}}, 1 << 60, {"n": {}}, 1j, float("nan"), Odd,
    {"k": [{"x": 1}, {"y": "s"}]},
]
VALUES.append([VALUES])
VALUES[-1].append(VALUES[-1])

@node(output_name="made")
def pick(which: int):
    return VALUES[which]

@node(output_name="typed")
def alternate(n):
    return None if n < 1500 else {"late": n} if n % 2 else None

@node(output_name="whole")
def whole(n):
    return n if n < 1800 else n + 0.5

documents = Pipeline([size_of])
kinds = Pipeline([kind_of])
sums = Pipeline([add])
picks = Pipeline([pick])
late = Pipeline([alternate, whole])
inner = Pipeline([size_of], name="inner")
nested = Pipeline([inner.as_node(input_mapping={"doc": "document"})])
listed = Pipeline([inner.as_node(input_mapping={"docs": "document"}, map_over="docs")])
plain = Pipeline([node(lambda path: type(path).__name__, output_name="kind")])

@node(output_name="boom")
def boom(n):
    if n == 7:
        raise RuntimeError("boom")
    return n
fragile = Pipeline([boom])

@node(output_name="n2")
def slowly(n):
    import time
    time.sleep(0.01)
    if n == 110:
        Path("started").touch()
    return n
slow = Pipeline([slowly])
"""


@pytest.fixture
def files(here):
    (here / "written_files.py").write_text(FILES)
    yield here
    import sys

    sys.modules.pop("written_files", None)


def csv_of(path):
    import csv

    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_rows_keep_the_columns_that_are_named_and_their_index(here, suffix):
    (here / "in.jsonl").write_text('{"id": "a7", "text": "four"}\n{"id": "b8", "text": "bad"}\n')
    out = here / f"out{suffix}"
    command(
        *("written_here:sizes", "--inputs", "in.jsonl", "--keep", "id", "--out", out),
        *("--on-error", "return", "--output", "letters"),
        exit_code=3,
    )
    rows = csv_of(out) if suffix == ".csv" else rows_of(out)
    assert [list(row) for row in rows] == [["index", "id", "letters", "error", "input"]] * 2
    assert [(int(row["index"]), row["id"]) for row in rows] == [(0, "a7"), (1, "b8")]
    assert rows[1]["error"] == "ValueError: a bad text"
    expected = {"text": "bad"}
    assert rows[1]["input"] == (json.dumps(expected) if suffix == ".csv" else expected)


def test_values_of_a_json_file_are_kept_beside_the_items(here):
    (here / "in.json").write_text('{"text": ["a", "bc"], "id": [7, 8]}')
    done = command("written_here:sizes", "--inputs", "in.json", "--map-over", "text", "--keep", "id")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [7, 8]
    (here / "in.json").write_text('{"base": [2, 3], "exp": [1, 2]}')
    product = ["written_here:power", "--inputs", "in.json", "--map-over", "base", "--map-over", "exp"]
    product += ["--map-mode", "product"]
    done = command(*product, "--keep", "exp")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"index": i, "exp": e, "power": b**e} for i, (b, e) in enumerate([(2, 1), (2, 2), (3, 1), (3, 2)])
    ]
    assert "belongs to no single row" in command(*product, "--keep", "id", exit_code=2).stderr


def test_a_column_of_the_file_may_take_the_place_of_the_index(here):
    (here / "in.jsonl").write_text('{"index": 40, "text": "a"}\n{"index": 41, "text": "b"}\n')
    done = command("written_here:sizes", "--inputs", "in.jsonl", "--keep", "index", "--output", "letters")
    assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == [40, 41]


def test_columns_of_the_same_name_are_refused_before_anything_is_computed(here):
    (here / "in.jsonl").write_text('{"text": "a", "letters": 3, "error": 1}\n')
    given = ("written_here:sizes", "--inputs", "in.jsonl", "--map-over", "text")
    done = command(*given, "--keep", "letters", exit_code=2)
    assert "two columns of the name 'letters'" in done.stderr
    assert "--keep error" in command(*given, "--keep", "error", "--on-error", "return", exit_code=2).stderr
    command(*given, "--keep", "error")


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with byte order mark"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_files_in_utf_8_may_have_a_byte_order_mark(here, suffix, mark):
    texts = {
        ".json": '{"text": ["é€"]}',
        ".jsonl": '{"text": "é€"}\n',
        ".csv": "text\r\né€\r\n",
    }
    (here / f"in{suffix}").write_bytes((mark + texts[suffix]).encode())
    done = command("written_here:sizes", "--inputs", f"in{suffix}", "--map-over", "text")
    assert json.loads(done.stdout)["letters"] == 2


def test_cells_of_csv_are_what_the_hints_of_the_node_say(files):
    (files / "in.csv").write_text('a,b,c,label\n1,2,3,4\n007,1e3,,""\n')
    done = command("written_files:sums", "--inputs", "in.csv")
    assert [json.loads(line)["sum"] for line in done.stdout.splitlines()] == [
        "1 2.0 3 '4'",
        "7 1000.0 None ''",
    ]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "22", "-3"], "int"),
        (["1", "2.5"], "float"),
        (["1e5", "3"], "float"),
        (["01234", "12345"], "str"),
        (["1", "b"], "str"),
        (["1_000", "2"], "str"),
        (["nan", "1"], "str"),
        (["true", "false"], "str"),
        (["0", "0.5"], "float"),
        (["1 ", "2"], "str"),
        (["-", "1"], "str"),
        (["1" * 30, "2"], "int"),
    ],
)
def test_columns_of_csv_without_a_hint_are_numbers_if_all_their_cells_are(files, cells, kind):
    (files / "in.csv").write_text("value\n" + "".join(f'"{cell}"\n' for cell in cells))
    done = command("written_files:kinds", "--inputs", "in.csv")
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == [kind] * len(cells)


def test_a_text_of_the_command_line_stays_a_text_if_the_node_takes_one(files):
    done = command("written_files:sums", "--set", "a=1", "--set", "label=007")
    assert json.loads(done.stdout) == {"sum": "1 0.5 None '007'"}


@pytest.mark.parametrize("executor", [None, "threaded"])
def test_bad_and_short_rows_are_errors_of_their_items(here, executor):
    where = [] if executor is None else ["--executor", executor]
    lines = [
        '{"text": "ab", "id": 1}',
        "{oh}",
        '{"id": 3}',
        "[1]",
        '{"text": "bad", "id": 5}',
        '{"text": "c"}',
    ]
    (here / "in.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    given = ("written_here:sizes", "--inputs", "in.jsonl", "--keep", "id", "--output", "letters", *where)
    command(*given, "--on-error", "return", "--out", "out.jsonl", exit_code=3)
    rows = rows_of(here / "out.jsonl")
    assert [(row["index"], row["id"], row["letters"]) for row in rows] == [
        *(
            (0, 1, 2),
            (1, None, None),
            (2, 3, None),
            (3, None, None),
            (4, 5, None),
            (5, None, 1),
            (6, None, None),
        )
    ]
    errors = [row["error"] for row in rows]
    assert errors[1].startswith("RowError: in.jsonl, line 2 is not valid JSON")
    assert errors[2] == "RowError: in.jsonl, row 3: no value for 'text'."
    assert "is not an object" in errors[3]
    assert errors[4:6] == ["ValueError: a bad text", None]
    assert "not in UTF-8" in errors[6]
    done = command(*given, "--out", "other.jsonl", exit_code=1)
    assert "line 2 is not valid JSON" in done.stderr
    assert not (here / "other.jsonl").exists()


def test_bad_rows_of_csv_are_errors_of_their_items(files):
    (files / "in.csv").write_bytes(
        b'a,b\n1,2\n3\n4,5,6\nx,1\n\n,1\n7,"q\n8,1\n9,2\n'  # the quote of the last row is never closed
    )
    done = command("written_files:sums", "--inputs", "in.csv", "--on-error", "return", exit_code=3)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0]["sum"] == "1 2.0 None 'x'"
    assert [row["error"] for row in rows[1:]] == [
        "RowError: in.csv, line 3 has 1 cells, but the file has 2 columns.",
        "RowError: in.csv, line 4 has 3 cells, but the file has 2 columns.",
        "RowError: in.csv, line 5: column 'a': 'x' is not of type int.",
        "RowError: in.csv, line 7: column 'a': '' is not of type int.",
        "RowError: in.csv, line 10 is not valid CSV: unexpected end of data.",
    ]
    assert rows[1]["input"] == {"a": "3"}


def test_a_short_first_row_is_an_error_of_its_item_only(here):
    (here / "in.jsonl").write_text('{"id": 1}\n{"text": "ab", "id": 2}\n')
    for options in ([], ["--map-over", "text"]):
        done = command(
            *("written_here:sizes", "--inputs", "in.jsonl", "--keep", "id", *options),
            *("--on-error", "return", "--output", "letters"),
            exit_code=3,
        )
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(row["id"], row["letters"]) for row in rows] == [(1, None), (2, 2)]
        assert rows[0]["error"] == "RowError: in.jsonl, row 1: no value for 'text'."


def test_rows_with_different_inputs_are_never_mapped_over_in_part(here):
    (here / "in.jsonl").write_text('{"text": "a"}\n{"text": "b", "factor": 3}\n')
    done = command("written_here:sizes", "--inputs", "in.jsonl", "--on-error", "return", exit_code=3)
    assert [json.loads(line)["letters"] for line in done.stdout.splitlines()] == [None, 3]
    done = command("written_here:sizes", "--inputs", "in.jsonl", "--map-over", "text")
    assert [json.loads(line)["letters"] for line in done.stdout.splitlines()] == [1, 1]
    (here / "in.jsonl").write_text('{"text": "a"}\n' * 1000 + '{"text": "b", "factor": 3}\n')
    done = command("written_here:sizes", "--inputs", "in.jsonl", "--on-error", "return", exit_code=3)
    assert "row 1001 has a value for the input 'factor', which the first 1,000 rows have not" in done.stdout


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_all_columns_that_are_inputs_are_mapped_over_by_default(here, suffix):
    table = pa.table({"id": [1, 2], "text": ["a", "bc"], "factor": [2, 3]})
    if suffix == ".parquet":
        pq.write_table(table, here / "in.parquet")
    elif suffix == ".csv":
        (here / "in.csv").write_text("id,text,factor\n1,a,2\n2,bc,3\n")
    else:
        (here / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    done = command("written_here:sizes", "--inputs", f"in{suffix}", "--keep", "id")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["id"], row["letters"]) for row in rows] == [(1, 2), (2, 6)]
    done = command("written_here:sizes", "--inputs", f"in{suffix}", "--set", "factor=10")
    assert [json.loads(line)["letters"] for line in done.stdout.splitlines()] == [10, 20]
    done = command("written_here:sizes", "--inputs", f"in{suffix}", "--map-over", "text")
    assert "columns that are inputs, but not used: 'factor'" in done.stderr


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".json", ".parquet"])
def test_a_file_without_rows_gives_a_file_without_rows(here, suffix):
    (here / "in.csv").write_text("text\n")
    command("written_here:sizes", "--inputs", "in.csv", "--out", f"out{suffix}")
    if suffix == ".csv":
        assert (here / "out.csv").read_text() == "index,size,letters\n"
    else:
        assert rows_of(here / f"out{suffix}") == []


@pytest.mark.parametrize(
    ("pipeline", "name", "value"),
    [
        ("documents", "document", '["a.txt", "b.txt"]'),
        ("nested", "doc", '["a.txt", "b.txt"]'),
        ("listed", "docs", '[["a.txt"], ["b.txt"]]'),
    ],
)
def test_paths_become_files_if_the_node_takes_files(files, pipeline, name, value):
    (files / "a.txt").write_text("four")
    (files / "b.txt").write_text("sixsix")
    (files / "in.json").write_text(json.dumps({name: json.loads(value)}))
    rows = [{name: each} for each in json.loads(value)]
    pq.write_table(pa.Table.from_pylist(rows), files / "in.parquet")
    for inputs in (["--set", f"{name}={value}"], ["--inputs", "in.json"], ["--inputs", "in.parquet"]):
        done = command(f"written_files:{pipeline}", *inputs, "--map-over", name)
        sizes = [json.loads(line)["size"] for line in done.stdout.splitlines()]
        assert str(sizes).replace("[", "").replace("]", "") == "'File 4', 'File 6'"


def test_the_option_file_names_inputs_that_are_files(files):
    assert json.loads(command("written_files:plain", "--set", "path=a").stdout) == {"kind": "str"}
    done = command("written_files:plain", "--set", "path=a", "--file", "path")
    assert json.loads(done.stdout) == {"kind": "File"}
    (files / "in.csv").write_text("path\n12\n")
    done = command("written_files:plain", "--inputs", "in.csv", "--file", "path")
    assert json.loads(done.stdout)["kind"] == "File"


# ---------------------------------------------------------------------------- nothing computed is lost


def test_columns_of_parquet_have_the_types_that_all_their_rows_need(files):
    (files / "in.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in range(2500)))
    command("written_files:late", "--inputs", "in.jsonl", "--out", "out.parquet")
    table = pq.read_table(files / "out.parquet")
    assert table.schema.field("typed").type == pa.struct([("late", pa.int64())])
    assert table.schema.field("whole").type == pa.float64()
    rows = table.to_pylist()
    assert len(rows) == 2500
    assert rows[1501]["typed"] == {"late": 1501}
    assert (rows[5]["whole"], rows[2000]["whole"]) == (5, 2000.5)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("together", [True, False])
def test_every_value_is_written_whatever_its_type(files, suffix, together):
    import importlib

    count = len(importlib.import_module("written_files").VALUES)
    out = files / f"out{suffix}"
    rows = range(count)
    for group in [rows] if together else [[row] for row in rows]:
        (files / "in.json").write_text(json.dumps({"which": [*group]}))
        done = command(
            "written_files:picks", "--inputs", "in.json", "--map-over", "which", "--out", out, "--quiet"
        )
        written = csv_of(out) if suffix == ".csv" else rows_of(out)
        assert [int(row["index"]) for row in written] == [*range(len(group))]
        if 7 in group:
            assert "output 'made'" in done.stderr
            assert "values of type Odd were written as their repr" in done.stderr
            made = written[[*group].index(7)]["made"]
            assert made in ("<odd>", '"<odd>"')
    if together and suffix == ".parquet":
        assert "column 'made' has values that no one type of Parquet holds" in done.stderr
        assert json.loads(written[0]["made"]) == 1
        assert written[3]["made"] is None


def test_values_of_parquet_keep_their_types(files):
    import datetime as dt

    made = {}
    for which in (5, 14, 15, 16, 17, 33, 38):
        (files / "in.json").write_text(json.dumps({"which": [which]}))
        command("written_files:picks", "--inputs", "in.json", "--map-over", "which", "--out", "out.parquet")
        made[which] = rows_of(files / "out.parquet")[0]["made"]
    assert made == {
        5: b"\xff",
        14: dt.datetime(2020, 1, 2, 3),
        15: dt.date(2020, 1, 2),
        16: dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
        17: dt.time(3),
        33: 1 << 60,
        38: {"k": [{"x": 1, "y": None}, {"x": None, "y": "s"}]},
    }


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_rows_that_were_computed_before_an_error_are_kept(files, suffix):
    (files / "in.json").write_text(json.dumps({"n": [*range(20)]}))
    out = f"out{suffix}"
    done = command(
        "written_files:fragile", "--inputs", "in.json", "--map-over", "n", "--out", out, exit_code=1
    )
    assert "RuntimeError: boom" in done.stderr
    (kept,) = files.glob(f"out.partial-*{suffix}")
    assert f"7 rows that were computed before are in {kept}" in done.stderr
    rows = csv_of(kept) if suffix == ".csv" else rows_of(kept)
    assert [int(row["boom"]) for row in rows] == [*range(7)]
    assert not (files / out).exists()
    assert not [path for path in files.iterdir() if path.name.startswith(".")]


def test_rows_before_one_that_cannot_be_read_are_kept(files):
    (files / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(5)) + "{oh}\n")
    command("written_files:fragile", "--inputs", "in.jsonl", "--out", "out.csv", exit_code=1)
    (kept,) = files.glob("out.partial-*.csv")
    assert len(csv_of(kept)) == 5


def test_rows_that_were_computed_before_an_interrupt_are_kept(files):
    import signal
    import subprocess
    import sys

    (files / "in.jsonl").write_text("".join(json.dumps({"n": n + 100}) + "\n" for n in range(3000)))
    words = [sys.executable, "-m", "hypernodes", "run", "written_files:slow", "--inputs", "in.jsonl"]
    run = subprocess.Popen([*words, "--out", "out.jsonl", "--quiet"], stderr=subprocess.PIPE, text=True)
    while not (files / "started").exists():
        assert run.poll() is None
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 1
    (kept,) = files.glob("out.partial-*.jsonl")
    assert f"rows that were computed before are in {kept}" in told
    assert "Traceback" not in told
    rows = rows_of(kept)
    assert len(rows) >= 5
    assert [row["index"] for row in rows] == [*range(len(rows))]


def test_outputs_replace_a_link_and_do_not_follow_it(here):
    (here / "precious.jsonl").write_text("mine")
    (here / "out.jsonl").symlink_to("precious.jsonl")
    command("written_here:sizes", "--set", 'text=["a"]', "--map-over", "text", "--out", "out.jsonl")
    assert (here / "precious.jsonl").read_text() == "mine"
    assert not (here / "out.jsonl").is_symlink()
    assert len(rows_of(here / "out.jsonl")) == 1


def test_two_runs_at_once_with_one_output_file_give_a_whole_file(here):
    import subprocess
    import sys

    (here / "in.json").write_text(json.dumps({"text": ["x" * 50] * 3000}))
    words = [sys.executable, "-m", "hypernodes", "run", "written_here:sizes", "--inputs", "in.json"]
    words += ["--map-over", "text", "--out", "out.jsonl", "--quiet"]
    runs = [subprocess.Popen(words) for _ in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert len(rows_of(here / "out.jsonl")) == 3000
    assert [path.name for path in here.iterdir() if path.name.startswith(".out")] == []


def test_a_reader_that_ends_early_is_no_error(here):
    import subprocess
    import sys

    (here / "in.json").write_text(json.dumps({"text": ["x" * 500] * 3000}))
    words = f"{sys.executable} -m hypernodes run written_here:sizes --inputs in.json --map-over text --quiet"
    done = subprocess.run(f"{words} | head -1", shell=True, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["letters"] == 500
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_kept_of_a_bad_row_of_csv_has_the_same_type_as_in_others(here):
    (here / "in.csv").write_text("id,base,exp\n1,2,3\n2,2,x\n3,2\n4,2,3,4\n")
    options = ["--inputs", "in.csv", "--keep", "id", "--on-error", "return"]
    done = CliRunner().invoke(main, ["run", "written_here:power", *options])
    assert done.exit_code == 3, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["id"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl"])
def test_a_file_in_utf_16_is_one_message(here, name):
    (here / name).write_text('{"text": "a"}\n' if name == "in.jsonl" else "text\na\n", encoding="utf-16")
    done = CliRunner().invoke(main, ["run", "written_here:sizes", "--inputs", name])
    assert done.exit_code == 1
    assert "in UTF-16. Convert it" in done.output
