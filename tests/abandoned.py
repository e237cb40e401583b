"""A run in which a node is under way when another one's error ends the run."""

import threading

import pytest

from hypernodes import HyperNodesEngine, Pipeline, PipelineCallback, node


class Failed(Exception):
    """The error that ends the run."""


class Release(PipelineCallback):
    """Lets the node that is under way return, once the run has ended."""

    def __init__(self):
        self.event = threading.Event()

    def on_error(self, node_id, error, ctx):
        self.event.set()


def run_and_abandon(callbacks, nested=False):
    """Run a pipeline of which ``slow`` is abandoned since ``fail`` raises; ``slow`` may be in ``inner``."""
    release, started = Release(), threading.Event()

    @node(output_name="a")
    def slow(x):
        started.set()
        return release.event.wait(20)

    @node(output_name="b")
    def fail(x):
        started.wait(20)
        raise Failed(x)

    with HyperNodesEngine(node_executor="threaded") as engine:
        first = Pipeline([slow], name="inner") if nested else slow
        pipeline = Pipeline([first, fail], engine, name="outer", callbacks=[*callbacks, release])
        with pytest.raises(Failed):
            pipeline.run({"x": 1})
