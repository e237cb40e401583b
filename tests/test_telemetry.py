"""TelemetryCallback: runs as OpenTelemetry's traces and metrics."""

import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from abandoned import run_and_abandon
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode

import hypernodes
from hypernodes import DiskCache, HyperNodesEngine, Pipeline, PipelineCallback, TelemetryCallback, node
from hypernodes.exceptions import TelemetryWarning, TransportError

EXECUTORS = ("sequential", "async", "threaded", "parallel", "ray", "loky", "dask")


class Spans:
    """The spans of a run, as a tree."""

    def __init__(self):
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))

    @property
    def all(self):
        return self._memory.get_finished_spans()

    def named(self, name):
        return [span for span in self.all if span.name == name]

    def one(self, name):
        (span,) = self.named(name)
        return span

    @property
    def orphans(self):
        known = {span.context.span_id for span in self.all}
        return [span.name for span in self.all if span.parent and span.parent.span_id not in known]

    def shape(self, span_id=None):
        """Return names, and within each what hangs under it, in the order of names."""
        children = [span for span in self.all if (span.parent.span_id if span.parent else None) == span_id]
        return sorted((span.name, self.shape(span.context.span_id)) for span in children)


@pytest.fixture
def spans():
    return Spans()


@pytest.fixture(scope="module")
def everywhere():
    """OpenTelemetry's own provider, which a process sets once."""
    memory, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    once = trace._TRACER_PROVIDER_SET_ONCE
    before = trace._TRACER_PROVIDER
    once._done = False
    trace.set_tracer_provider(provider)
    found = Spans()
    found._memory, found.provider = memory, provider
    yield found
    trace._TRACER_PROVIDER, once._done = before, False


@node(output_name="words")
def split(text):
    return text.split()


@node(output_name="size")
def measure(word):
    from opentelemetry import trace

    with trace.get_tracer("app").start_as_current_span("inside") as span:
        span.set_attribute("by", os.getpid())
        span.add_event("looked", {"at": word})
    return len(word)


@node(output_name="total")
def add(sizes):
    return sum(sizes)


def text(engine=None, callbacks=(), **options):
    words = Pipeline([measure], name="words", engine=engine, **options)
    return Pipeline(
        [split, words.as_node({"words": "word"}, {"size": "sizes"}, map_over="words"), add],
        name="text",
        callbacks=list(callbacks),
    )


ITEM = ("item", [("measure", [("inside", [])])])
TEXT = ("text", [("add", []), ("split", []), ("words", [("map", [ITEM, ITEM])])])


@pytest.mark.parametrize("level", ["node_executor", "map_executor"])
@pytest.mark.parametrize("name", EXECUTORS)
def test_a_run_is_one_tree_whatever_the_executor(everywhere, executor_named, level, name):
    everywhere._memory.clear()
    with HyperNodesEngine(**{level: executor_named(name)}) as engine:
        pipeline = text(engine, [TelemetryCallback()])
        with trace.get_tracer("app").start_as_current_span("mine"):
            assert pipeline.run({"text": "a bcd"})["total"] == 4
    assert everywhere.shape() == [("mine", [TEXT])]
    assert len({span.context.trace_id for span in everywhere.all}) == 1
    for one in everywhere.named("measure"):
        (inside,) = [s for s in everywhere.named("inside") if s.parent.span_id == one.context.span_id]
        assert one.attributes["process.pid"] == inside.attributes["by"]
        assert one.start_time <= inside.start_time <= inside.end_time <= one.end_time + 1_000_000
        assert inside.events[0].attributes["at"] in ("a", "bcd")
        assert inside.instrumentation_scope.name == "app"


def test_a_run_is_one_tree_with_daft(everywhere, daft_runner):
    everywhere._memory.clear()
    pipeline = text(callbacks=[TelemetryCallback()]).with_engine(hypernodes.DaftEngine())
    assert pipeline.map({"text": ["a bcd", "ef gh"]}, "text")["total"] == [4, 4]
    tree = [("item", [*TEXT[1]])] * 2
    assert everywhere.shape() == [("text", [("map", tree)])]


def test_spans_have_the_attributes_of_the_documentation(spans, tmp_path):
    cache = DiskCache(tmp_path)
    pipeline = text(callbacks=[TelemetryCallback(spans.provider)]).with_cache(cache)
    pipeline.run({"text": "a bcd"})
    attributes = spans.one("split").attributes
    assert attributes["hypernodes.pipeline"] == "text"
    assert (attributes["hypernodes.node"], attributes["hypernodes.executor"]) == ("split", "sequential")
    assert attributes["hypernodes.cache.hit"] is False
    assert attributes["hypernodes.signature"]
    assert (attributes["hypernodes.output.words.type"], attributes["hypernodes.output.words.length"]) == (
        "list",
        2,
    )
    assert attributes["host.name"]
    assert (attributes["process.pid"], attributes["thread.name"]) == (os.getpid(), "MainThread")
    assert {span.attributes["hypernodes.item"] for span in spans.named("measure")} == {"0", "1"}
    assert spans.one("map").attributes["hypernodes.map.items"] == 2
    assert spans.one("text").attributes["hypernodes.cache"] == repr(cache)
    spans._memory.clear()
    pipeline.run({"text": "a bcd"})
    again = spans.one("split")
    assert again.attributes["hypernodes.cache.hit"] is True
    assert again.attributes["hypernodes.signature"] == attributes["hypernodes.signature"]
    assert not spans.named("inside")
    assert not spans.orphans


def test_arrays_say_how_large_they_are_also_where_they_stay_in_a_worker(spans):
    np = pytest.importorskip("numpy")

    @node(output_name="zeros")
    def make(n):
        return np.zeros(n)

    with HyperNodesEngine(map_executor="parallel") as engine:
        pipeline = Pipeline([make], engine, name="big", callbacks=[TelemetryCallback(spans.provider)])
        pipeline.map({"n": [10]}, "n")
    attributes = spans.one("make").attributes
    assert (attributes["hypernodes.output.zeros.length"], attributes["hypernodes.output.zeros.bytes"]) == (
        10,
        80,
    )


@pytest.mark.parametrize("alias", ["sequential", "threaded", "parallel"])
def test_errors_and_retries_are_on_the_spans_of_their_nodes(spans, alias):
    @node(output_name="y", retries=2)
    def fragile(x):
        if x == 1:
            raise ValueError("one is too few")
        return x

    with HyperNodesEngine(map_executor=alias) as engine:
        inner = Pipeline([fragile], name="inner")
        pipeline = Pipeline([inner], engine, name="outer", callbacks=[TelemetryCallback(spans.provider)])
        rows = pipeline.map({"x": [0, 1, 2]}, "x", on_error="return")["y"]
    assert type(rows[1]) is ValueError
    (failed,) = [span for span in spans.named("fragile") if span.status.status_code is StatusCode.ERROR]
    assert failed.attributes["hypernodes.retries"] == 2
    assert [event.name for event in failed.events] == ["retry", "retry", "exception"]
    assert failed.events[2].attributes["exception.message"] == "one is too few"
    assert failed.status.description == "ValueError: one is too few"
    above = [span for span in spans.all if span.attributes.get("hypernodes.item") == "1"]
    assert {span.name for span in above} == {"item", "inner", "fragile"}
    assert all(span.status.status_code is StatusCode.ERROR for span in above)
    others = [s for s in spans.all if s.attributes.get("hypernodes.item") in ("0", "2")]
    assert len(others) == 6
    assert all(span.status.status_code is StatusCode.UNSET for span in (*others, spans.one("outer")))
    assert not spans.orphans


def test_an_error_that_ends_the_run_ends_every_span(spans):
    @node(output_name="y")
    def fail(x):
        raise KeyError("no")

    inner = Pipeline([fail], name="inner")
    pipeline = Pipeline(
        [inner.as_node(map_over="x")], name="outer", callbacks=[TelemetryCallback(spans.provider)]
    )
    with pytest.raises(KeyError):
        pipeline.run({"x": [1, 2]})
    assert spans.shape() == [("outer", [("inner", [("map", [("item", [("fail", [])])])])])]
    assert spans.one("outer").status.status_code is StatusCode.ERROR
    with pytest.raises(KeyError):
        pipeline.map({"x": [[1], [2]]}, "x")
    assert not spans.orphans


@pytest.mark.parametrize("nested", [False, True])
def test_the_span_of_an_abandoned_node_ends_without_an_error(spans, nested):
    reader = InMemoryMetricReader()
    run_and_abandon([TelemetryCallback(spans.provider, MeterProvider([reader]))], nested)
    slow = ("slow", [])
    assert spans.shape() == [("outer", [("fail", []), ("inner", [slow]) if nested else slow])]
    for name in ("slow", "inner") if nested else ("slow",):
        abandoned = spans.one(name)
        assert abandoned.attributes["hypernodes.unfinished"] is True
        assert abandoned.status.status_code is StatusCode.UNSET
        assert not abandoned.events
    assert spans.one("fail").status.status_code is StatusCode.ERROR
    assert "hypernodes.unfinished" not in spans.one("fail").attributes
    failed = [
        point.attributes["hypernodes.node"]
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "hypernodes.node.errors"
        for point in metric.data.data_points
    ]
    assert failed == ["fail"]


def test_of_many_items_a_share_has_spans_and_those_that_fail_always_have(spans):
    @node(output_name="y")
    def check(x):
        if x == 3_333:
            raise ValueError(x)
        return x

    inner = Pipeline([check], name="inner")
    pipeline = Pipeline([inner], name="outer", callbacks=[TelemetryCallback(spans.provider)])
    pipeline.map({"x": range(4000)}, "x", on_error="return")
    items = [int(span.attributes["hypernodes.item"]) for span in spans.named("item")]
    assert sorted(items) == sorted([*range(1000), *range(1000, 4000, 10), 3_333])
    assert Counter(map(len, [spans.named("inner"), spans.named("check")])) == {len(items): 2}
    assert not spans.orphans
    few = Spans()
    telemetry = [TelemetryCallback(few.provider, sample_items=0.01)]
    pipeline.with_callbacks(telemetry).map({"x": range(1000)}, "x")
    assert len(few.named("item")) == 10
    assert not few.orphans


def test_spans_that_are_opened_in_items_without_spans_are_not_recorded(everywhere):
    everywhere._memory.clear()
    pipeline = Pipeline([measure], callbacks=[TelemetryCallback(sample_items=0.5)])
    pipeline.map({"word": ["a", "b", "c", "d"]}, "word")
    assert len(everywhere.named("inside")) == 2
    assert not everywhere.orphans


def test_a_trace_that_is_not_sampled_costs_no_spans(spans):
    off = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(0)))
    with trace.use_span(off):
        text(callbacks=[TelemetryCallback(spans.provider)]).run({"text": "a"})
    assert not spans.all


def test_two_runs_in_one_trace_are_two_trees(everywhere):
    everywhere._memory.clear()
    pipeline = text(callbacks=[TelemetryCallback()])
    with trace.get_tracer("app").start_as_current_span("mine"):
        pipeline.run({"text": "a bcd"})
        pipeline.run({"text": "a bcd"})
    assert everywhere.shape() == [("mine", [TEXT, TEXT])]
    assert len({span.context.span_id for span in everywhere.all}) == len(everywhere.all)


def test_a_run_inside_a_node_hangs_under_that_node(everywhere):
    everywhere._memory.clear()
    telemetry = [TelemetryCallback()]
    small = Pipeline([add], name="small", callbacks=telemetry)

    @node(output_name="y")
    def outer(x):
        return small.run({"sizes": [x]})["total"]

    Pipeline([outer], name="big", callbacks=telemetry).run({"x": 1})
    assert everywhere.shape() == [("big", [("outer", [("small", [("add", [])])])])]


@pytest.mark.parametrize("fails", [False, True])
def test_a_nested_pipeline_alone_can_have_spans(spans, fails):
    @node(output_name="y")
    def work(x):
        if fails:
            raise ValueError("no")
        return x

    inner = Pipeline([work], name="inner", callbacks=[TelemetryCallback(spans.provider)])
    outer = Pipeline([inner.as_node(map_over="x")], name="outer")
    if fails:
        with pytest.raises(ValueError):
            outer.run({"x": [1]})
    else:
        outer.run({"x": [1]})
    assert spans.shape() == [("inner", [("map", [("item", [("work", [])])])])]


def test_metrics_count_and_measure(spans, tmp_path):
    reader = InMemoryMetricReader()
    telemetry = TelemetryCallback(spans.provider, MeterProvider([reader]))
    pipeline = text(callbacks=[telemetry]).with_cache(DiskCache(tmp_path))
    pipeline.run({"text": "a bcd"})
    pipeline.run({"text": "a bcd"})
    found = {
        metric.name: metric.data.data_points
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    points = {p.attributes["hypernodes.node"]: p for p in found["hypernodes.node.duration"]}
    assert {name: point.count for name, point in points.items()} == {"split": 1, "measure": 2, "add": 1}
    assert points["measure"].attributes["hypernodes.pipeline"] == "text/words"
    hits = {p.attributes["hypernodes.node"]: p.value for p in found["hypernodes.node.cache_hits"]}
    assert hits == {"split": 1, "measure": 2, "add": 1}
    assert [point.value for point in found["hypernodes.map.items"]] == [4]


def test_without_a_provider_there_is_one_warning_and_the_run_goes_on(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    pipeline = text(callbacks=[TelemetryCallback()])
    with pytest.warns(TelemetryWarning, match="no tracer provider") as warned:
        assert pipeline.run({"text": "a bcd"})["total"] == 4
        assert pipeline.run({"text": "a bcd"})["total"] == 4
    assert len(warned) == 1


class AnyTracer(trace.Tracer):
    """A tracer that is not OpenTelemetry's own: it chooses the ids of its spans itself."""

    def __init__(self, tracer):
        self._inner = tracer

    def start_span(self, *args, **options):
        return self._inner.start_span(*args, **options)

    start_as_current_span = None


def test_a_tracer_that_chooses_its_ids_has_one_tree_all_the_same(spans):
    class Provider(trace.TracerProvider):
        def get_tracer(self, *args, **options):
            return AnyTracer(spans.provider.get_tracer(*args, **options))

    text(callbacks=[TelemetryCallback(Provider())]).run({"text": "a bcd"})
    assert not spans.orphans
    assert Counter(span.name for span in spans.all)["measure"] == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sample_items": 2}, "from 0 to 1"),
        ({"endpoint": "http://localhost:1", "tracer_provider": TracerProvider()}, "giv"),
        ({"endpoint": "localhost:4318"}, "must be a URL"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        TelemetryCallback(**options)


# ------------------------------------------------------------------------------------------ a collector


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP, as a collector does."""

    def __init__(self):
        self.spans, self.metrics, self.services = [], [], set()
        super().__init__(("127.0.0.1", 0), _Taking)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self):
        import gzip

        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for attribute in resource.resource.attributes:
                    if attribute.key == "service.name":
                        self.server.services.add(attribute.value.string_value)
                for scope in resource.scope_spans:
                    self.server.spans += scope.spans
        else:
            assert self.path == "/v1/metrics"
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    self.server.metrics += scope.metrics
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def collector():
    server = Collector()
    yield server
    server.shutdown()
    server.server_close()


SENDS = """
import os
import ray
from opentelemetry import trace
from hypernodes import HyperNodesEngine, Pipeline, TelemetryCallback, node

@node(output_name="words")
def split(text):
    return text.split()

@node(output_name="size")
def measure(word):
    from opentelemetry import trace
    with trace.get_tracer("app").start_as_current_span("inside"):
        return len(word)

@node(output_name="total")
def add(sizes):
    return sum(sizes), os.getpid()

def main():
    ray.init(log_to_driver=False, logging_level="error")
    words = Pipeline([measure], name="words", engine=HyperNodesEngine(node_executor="parallel"))
    on_ray = HyperNodesEngine(map_executor="ray")
    pipeline = Pipeline(
        [split, words.as_node({"words": "word"}, {"size": "sizes"}, map_over="words"), add],
        on_ray, name="text", callbacks=[TelemetryCallback()],
    )
    totals = pipeline.map({"text": ["a bcd", "ef gh ij"]}, "text")["total"]
    assert [total for total, _ in totals] == [4, 6]
    print(os.getpid())
    ray.shutdown()

if __name__ == "__main__":
    main()
"""


def test_a_nested_map_on_ray_with_nodes_in_processes_arrives_at_a_collector_as_one_tree(
    collector, tmp_path, environment_on_ray
):
    script = tmp_path / "sends.py"
    script.write_text(SENDS)
    ended = subprocess.run(
        [sys.executable, str(script)],
        env={
            **environment_on_ray,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_SERVICE_NAME": "tested",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    spans = {span.span_id: span for span in collector.spans}
    assert len(spans) == len(collector.spans)
    assert len({span.trace_id for span in collector.spans}) == 1
    assert [s.name for s in collector.spans if s.parent_span_id and s.parent_span_id not in spans] == []
    assert [span.name for span in collector.spans if not span.parent_span_id] == ["text"]
    assert Counter(span.name for span in collector.spans) == {
        "text": 1,
        "map": 3,
        "item": 2 + 2 + 3,
        "split": 2,
        "words": 2,
        "add": 2,
        "measure": 5,
        "inside": 5,
    }

    def pid(span):
        return next(a.value.int_value for a in span.attributes if a.key == "process.pid")

    pids = {
        name: {pid(s) for s in collector.spans if s.name == name} for name in ("split", "measure", "text")
    }
    assert pids["text"] == {int(ended.stdout)}
    assert not pids["split"] & pids["measure"]
    assert not pids["text"] & (pids["split"] | pids["measure"])
    for inside in (span for span in collector.spans if span.name == "inside"):
        assert spans[inside.parent_span_id].name == "measure"
        assert pid(inside) == pid(spans[inside.parent_span_id])
    assert collector.services == {"tested"}
    assert "hypernodes.node.duration" in {metric.name for metric in collector.metrics}


def test_an_unreachable_collector_is_logged_once_and_delays_nothing():
    script = """
import logging
from hypernodes import Pipeline, TelemetryCallback, node
logging.basicConfig()
pipeline = Pipeline([node(abs, output_name="y")], callbacks=[TelemetryCallback(endpoint="http://127.0.0.1:9")])
for _ in range(3):
    pipeline.map({"x": range(2000)}, "x")
print(pipeline.map({"x": [-1]}, "x"))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=25
    )
    assert ended.stdout == "{'y': [1]}\n"
    (line,) = ended.stderr.strip().splitlines()
    assert "the collector at http://127.0.0.1:9 is unreachable" in line


def test_logfire_shows_the_same_tree(tmp_path):
    script = tmp_path / "shows.py"
    script.write_text("""
import logfire
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
memory = InMemorySpanExporter()
kept = [SimpleSpanProcessor(memory)]
logfire.configure(send_to_logfire=False, console=False, additional_span_processors=kept)
from hypernodes import HyperNodesEngine, Pipeline, TelemetryCallback, node

@node(output_name="y")
def work(x):
    import logfire
    with logfire.span("inside {x}", x=x):
        return x

pipeline = Pipeline([work], name="p", callbacks=[TelemetryCallback()])
with HyperNodesEngine(map_executor="threaded") as engine, logfire.span("mine"):
    pipeline.with_engine(engine).map({"x": [1]}, "x")
spans = memory.get_finished_spans()
names = {span.context.span_id: span.name for span in spans}
print(sorted((span.name, names[span.parent.span_id] if span.parent else "") for span in spans))
""")
    ended = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "LOGFIRE_IGNORE_NO_CONFIG": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.stdout.strip() == str(
        [("inside {x}", "work"), ("item", "map"), ("map", "p"), ("mine", ""), ("p", "mine"), ("work", "item")]
    ), ended.stderr


def test_without_opentelemetry_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match="'telemetry'"):
        TelemetryCallback()


def test_nothing_is_logged_of_hooks_that_raise(spans, caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        pipeline = text(callbacks=[TelemetryCallback(spans.provider)]).with_cache(DiskCache(tmp_path))
        pipeline.map({"text": ["a b", "c"]}, "text")
        pipeline.map({"text": ["a b", "c"]}, "text")
        list(pipeline.imap({"text": iter(["a b", "d"])}, "text"))
    assert not caplog.records
    assert not spans.orphans


def test_the_spans_of_a_stream_that_is_closed_early_are_one_tree(spans):
    pipeline = text(callbacks=[TelemetryCallback(spans.provider)])
    for index, _ in pipeline.imap({"text": iter(["a b"] * 100)}, "text"):
        if index == 3:
            break
    assert not spans.orphans
    assert spans.one("text").status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("wanted", [0.0, 1.0])
def test_the_providers_sampler_decides(wanted):
    found = Spans()
    found.provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(wanted)))
    found.provider.add_span_processor(SimpleSpanProcessor(found._memory))
    text(callbacks=[TelemetryCallback(found.provider)]).run({"text": "a bcd"})
    assert bool(found.all) == bool(wanted)
    assert not found.orphans


def test_workers_keep_nothing_of_runs_that_are_not_traced(everywhere):
    telemetry = TelemetryCallback()
    with HyperNodesEngine(map_executor="parallel") as engine:
        pipeline = Pipeline([measure], engine, name="p")
        for callbacks in ([telemetry], [], [telemetry]):
            everywhere._memory.clear()
            pipeline.with_callbacks(callbacks).map({"word": ["a", "b"]}, "word")
    assert len(everywhere.named("inside")) == 2
    assert len({span.context.trace_id for span in everywhere.all}) == 1


class Noting(PipelineCallback):
    def __init__(self, context):
        self.context, self.notes = context, []

    def node_context(self, ctx):
        return self.context

    def on_node_notes(self, node_id, notes, ctx):
        self.notes.append(notes)


@contextmanager
def noting_a_lock(call):
    yield [threading.Lock()]


def test_notes_that_cannot_be_sent_are_dropped_and_such_contexts_raise():
    with HyperNodesEngine(map_executor="parallel") as engine:
        noting = Noting(noting_a_lock)
        pipeline = Pipeline([add], engine, name="p", callbacks=[noting])
        assert pipeline.map({"sizes": [[1], [2]]}, "sizes") == {"total": [1, 2]}
        assert noting.notes == [(), ()]
        lock = threading.Lock()
        with pytest.raises(TransportError, match="node_context"):
            pipeline.with_callbacks([Noting(lambda call: lock)]).map({"sizes": [[1]]}, "sizes")
