"""Models that note where they are made and closed. A module of its own, so that workers can import it."""

import os
import threading
from pathlib import Path

import pyarrow.compute as pc

from hypernodes import node, stateful


def note(log, what):
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{what} {os.getpid()}\n")


def noted(log):
    """The notes so far, as pairs of what was done and the process that did it."""
    lines = Path(log).read_text(encoding="utf-8").splitlines() if Path(log).exists() else []
    return [tuple(line.split()) for line in lines]


@stateful
class Model:
    LIMIT = 100

    def __init__(self, log, factor=2):
        note(log, "made")
        self.log = log
        self.factor = factor
        self.lock = threading.Lock()  # It could not travel.

    def predict(self, x, offset=0):
        with self.lock:
            return self.factor * x + offset

    async def predict_async(self, x):
        return self.factor * x

    @node(output_name="fourfold", batch=lambda self, x: pc.multiply(x, self.factor * 2))
    def quadruple(self, x):
        return x * self.factor * 2

    @staticmethod
    def check(x):
        return x < Model.LIMIT

    def __call__(self, x):
        return self.factor * x

    def close(self):
        note(self.log, "closed")


@stateful
def load(log, factor=2) -> Model.__wrapped__:
    return Model.__wrapped__(log, factor)


def load_plainly(log):
    note(log, "made")
    return {"factor": 2, "lock": threading.Lock()}


@node(output_name="y")
def predicted(model, x):
    return model.predict(x)


@node(output_name="y")
def multiplied(model, x):
    return model["factor"] * x


def load_noted(log, name):
    note(log, f"loaded-{name}")
    return name.upper()


def load_lock(log, name):
    note(log, f"loaded-{name}")
    return {"name": name.upper(), "lock": threading.Lock()}


@node(output_name="y")
def tagged(name_of_model, x):
    return f"{name_of_model}{x}"


@node(output_name="y")
def tagged_by(lock_of_model, x):
    with lock_of_model["lock"]:
        return f"{lock_of_model['name']}{x}"


name_of_model = node(load_noted, output_name="name_of_model")
lock_of_model = node(load_lock, output_name="lock_of_model")
