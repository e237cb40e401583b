"""LoggingCallback: a run as log records, and labels on the lines that nodes print and log."""

import io
import json
import logging
import os
import pickle
import subprocess
import sys

import pytest

from hypernodes import DaftEngine, HyperNodesEngine, LoggingCallback, Pipeline, node
from hypernodes.callbacks import JsonFormatter


@node(output_name="words")
def split(text):
    print("split", end="")
    print("ting")
    return text.split()


@node(output_name="size", retries=1)
def measure(word):
    print("measuring", word)
    logging.getLogger("app").warning("careful with %s, 100%%", word)
    sys.stderr.write("10 %\r100 %")
    return len(word)


def text(engine=None, **options):
    words = Pipeline([measure], name="words", engine=engine)
    return Pipeline(
        [split, words.as_node({"words": "word"}, {"size": "sizes"}, map_over="words")],
        name="text",
        callbacks=[LoggingCallback(**options)],
    )


LINES = [
    "text/split | splitting",
    "text/words/measure[0] | measuring a",
    "text/words/measure[1] | measuring bcd",
    "text/words/measure[0] | 100 %",
    "text/words/measure[1] | 100 %",
]


@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
@pytest.mark.parametrize("alias", ["sequential", "async", "threaded", "parallel"])
def test_what_nodes_print_is_labelled_whatever_the_executor(capfd, alias, level):
    out = sys.stdout
    with HyperNodesEngine(**{level: alias}) as engine:
        assert text(engine).run({"text": "a bcd"})["sizes"] == [1, 3]
    assert sys.stdout is out
    captured = capfd.readouterr()
    assert set(LINES) <= set((captured.out + captured.err).splitlines())
    assert "measuring" not in [line.split(" ")[0] for line in captured.out.splitlines()]


def test_what_nodes_print_in_a_daft_query_is_labelled(capfd, daft_runner):
    if daft_runner == "native":
        text().with_engine(DaftEngine()).map({"text": ["a bcd"]}, "text")
        captured = capfd.readouterr()
        assert {"text/split[0] | splitting", "text/words/measure[0.1] | measuring bcd"} <= set(
            captured.out.splitlines()
        )


RAY = """
import logging
import ray
from hypernodes import HyperNodesEngine, LoggingCallback, Pipeline, node

@node(output_name="size")
def measure(word):
    print("measuring", word)
    logging.getLogger("app").info("looked at %s", word)
    return len(word)

logging.basicConfig(level=logging.INFO)
ray.init()
engine = HyperNodesEngine(map_executor="ray")
pipeline = Pipeline([measure], engine, name="words", callbacks=[LoggingCallback()])
pipeline.map({"word": ["a", "bcd"]}, "word")
input()  # Ray's lines come later
ray.shutdown()
"""


def test_what_workers_of_ray_print_and_log_comes_to_the_driver_with_its_label(environment_on_ray):
    awaited = {
        f"words/measure[{item}] | {said}"
        for item, word in enumerate(["a", "bcd"])
        for said in (f"measuring {word}", f"looked at {word}  (INFO app)")
    }
    said = ""
    with subprocess.Popen(
        [sys.executable, "-c", RAY],
        env={**environment_on_ray, "RAY_DEDUP_LOGS": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as driver:
        for line in driver.stdout:
            said += line
            if all(each in said for each in awaited):
                driver.communicate("\n")
                break
    assert driver.returncode == 0, said
    assert [each for each in awaited if each not in said] == []


def test_records_made_in_nodes_carry_node_and_item(caplog):
    text().run({"text": "a bcd"})
    first, second = [record for record in caplog.records if record.name == "app"]
    assert first.getMessage() == "text/words/measure[0] | careful with a, 100%"
    assert (second.pipeline_path, second.node, second.item_path) == ("text/words", "measure", (1,))
    assert second.depth == 1


def test_labels_can_be_switched_off_and_other_lines_are_not_labelled(capsys, caplog):
    text(label=False).run({"text": "a"})
    print("afterwards")
    logging.getLogger("app").warning("afterwards")
    assert capsys.readouterr().out == "splitting\nmeasuring a\nafterwards\n"
    assert [record.getMessage() for record in caplog.records] == ["careful with a, 100%", "afterwards"]


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("alias", ["sequential", "parallel"])
def test_json_lines_have_fields_also_those_that_workers_print(capfd, alias):
    with HyperNodesEngine(map_executor=alias) as engine:
        text(engine, json=True, items=True).run({"text": "a bcd"})
    captured = capfd.readouterr()
    printed, logged = lines_of(captured.out), [line for line in lines_of(captured.err) if "event" in line]
    assert {(line["node"], tuple(line["item_path"]), line["message"]) for line in printed} == {
        ("split", (), "splitting"),
        ("measure", (0,), "measuring a"),
        ("measure", (1,), "measuring bcd"),
    }
    assert all(line["stream"] == "stdout" for line in printed)
    (end,) = [line for line in logged if line["event"] == "node_end" and line["node"] == "split"]
    assert end["duration"] > 0
    assert (end["level"], end["pipeline_path"], end["depth"]) == ("INFO", "text", 0)
    ends = [line for line in logged if line["event"] == "node_end" and line["node"] == "measure"]
    assert {line["pid"] for line in ends} == {line["pid"] for line in printed if line["node"] == "measure"}
    assert (os.getpid() in {line["pid"] for line in ends}) == (alias == "sequential")
    assert logged[0]["time"].endswith("+00:00")


def test_lines_go_to_a_file_or_a_stream(tmp_path):
    file, stream = tmp_path / "run.log", io.StringIO()
    pipeline = text(to=file).with_callbacks([LoggingCallback(to=file), LoggingCallback(to=stream, json=True)])
    pipeline.run({"text": "a"})
    first, *_, last = file.read_text().splitlines()
    assert first.endswith("INFO    pipeline text: started")
    assert "INFO    pipeline text: done in " in last
    events = [line["event"] for line in lines_of(stream.getvalue())]
    assert events[:3] == ["pipeline_start", "node_start", "node_end"]
    assert "map_start" in events
    assert "error" not in events


def test_records_have_the_time_and_process_of_their_event(caplog):
    with caplog.at_level(logging.DEBUG), HyperNodesEngine(map_executor="parallel") as engine:
        text(engine).run({"text": "a bcd"})
    ends = [record for record in caplog.records if getattr(record, "event", "") == "node_end"]
    times = {record.node: record.created for record in ends}
    assert times["split"] <= times["measure"] <= times["words"]
    assert {record.process for record in ends if record.node == "measure"} != {os.getpid()}


def test_errors_have_their_exception_and_formatters_show_tracebacks():
    formatter = JsonFormatter()
    try:
        1 / 0
    except ZeroDivisionError:
        record = logging.LogRecord("app", logging.ERROR, __file__, 1, "oh", (), sys.exc_info())
    line = json.loads(formatter.format(record))
    assert "ZeroDivisionError" in line["exception"]
    assert line["message"] == "oh"


def test_a_logger_has_handlers_of_its_own():
    with pytest.raises(ValueError, match=r"JsonFormatter\(\)"):
        LoggingCallback(logging.getLogger("mine"), json=True)


def test_a_node_may_log_with_fields_and_messages_of_its_own(caplog):
    @node(output_name="y")
    def busy(x):
        log = logging.getLogger("app")
        log.warning("fetch", extra={"host": "db1", "node": 7})
        log.warning({"structured": x})
        inner = Pipeline([split], name="inner", callbacks=[LoggingCallback()])
        with caplog.at_level(logging.INFO):
            return inner.run({"text": "a"})["words"]

    Pipeline([busy], name="p", callbacks=[LoggingCallback()]).run({"x": 1})
    fetch, structured = [record for record in caplog.records if record.name == "app"]
    assert (fetch.getMessage(), fetch.host, fetch.node) == ("p/busy | fetch", "db1", 7)
    assert (structured.msg, structured.node) == ({"structured": 1}, "busy")
    assert structured.getMessage() == "p/busy | {'structured': 1}"
    assert logging.Formatter("%(node)s %(message)s").format(structured).startswith("busy p/busy | ")
    logged = [record.getMessage() for record in caplog.records if record.name == "hypernodes.run"]
    assert "pipeline inner: started" in logged
    sent = pickle.loads(pickle.dumps(structured))
    assert (type(sent), sent.getMessage(), sent.node) == (
        logging.LogRecord,
        structured.getMessage(),
        "busy",
    )
    line = json.loads(JsonFormatter().format(structured))
    assert (line["message"], line["node"]) == ("{'structured': 1}", "busy")


def test_a_line_that_is_printed_piece_by_piece_costs_what_its_pieces_cost(capsys):
    @node(output_name="y")
    def dots(x):
        for _ in range(100_000):
            print(".", end="")
        return x

    Pipeline([dots], name="p", callbacks=[LoggingCallback()]).run({"x": 1})
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.count(".") for line in lines) == 100_000
    assert all(line.startswith("p/dots | .") for line in lines)


def test_a_factory_of_records_that_comes_later_is_respected(caplog):
    pipeline = text()
    pipeline.run({"text": "a"})
    before = logging.getLogRecordFactory()

    class Mine(logging.LogRecord):
        pass

    logging.setLogRecordFactory(Mine)
    try:
        pipeline.run({"text": "b"})
    finally:
        logging.setLogRecordFactory(before)
    last = [record for record in caplog.records if record.name == "app"][-1]
    assert isinstance(last, Mine)
    assert last.getMessage() == "text/words/measure[0] | careful with b, 100%"


def test_each_run_decides_what_its_workers_lines_look_like(capfd):
    with HyperNodesEngine(map_executor="parallel") as engine:
        for options in ({}, {"json": True}):
            text(engine, **options).run({"text": "a bcd"})
    printed = capfd.readouterr().err.splitlines()
    assert "text/words/measure[0] | careful with a, 100%  (WARNING app)" in printed
    logged = [json.loads(line) for line in printed if line.startswith("{")]
    assert [line["message"] for line in logged if line.get("logger") == "app"].count(
        "careful with a, 100%"
    ) == 1


def test_json_takes_what_json_does_not_know():
    record = logging.makeLogRecord({"msg": "odd", "d": {(1, 2): 3}, "n": float("nan"), "level": "mine"})
    line = json.loads(JsonFormatter().format(record))
    assert (line["d"], line["n"], line["message"]) == ("{(1, 2): 3}", "nan", "odd")


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("app",), {}, TypeError),
        ((), {"level": "LOUD"}, ValueError),
        ((), {"to": "/nowhere/at/all.log"}, OSError),
    ],
)
def test_what_cannot_be_logged_to_is_refused_at_once(arguments, options, error):
    with pytest.raises(error):
        LoggingCallback(*arguments, **options)
    LoggingCallback(level="DEBUG")
