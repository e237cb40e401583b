"""Functions for one module, one entry, one question, and the pipelines that wire them by their names."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hypernodes import Pipeline, node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model import Embedder, Vector

_SIGNATURE = re.compile(r"[\w.]+\(.*\)( -+> [\w\[\], |]+)?")


class Hit(NamedTuple):
    """A documented object that answers a question, and how well: 1 is a perfect match."""

    module: str
    name: str
    score: float


@node(output_name=("names", "docs"))
def read(module: str, python: str) -> tuple[list[str], list[str]]:  # noqa: ARG001
    """Return the names and the docstrings of a module's public objects."""
    # Another release of Python documents other things: it counts as an input although nothing reads it.
    entries = dict(documented(module))
    return list(entries), list(entries.values())


def documented(module: str) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of a module, its functions and classes, and their methods."""
    found = import_module(module)
    objects: dict[str, object] = {module: found}
    for name, value in inspect.getmembers(found, lambda v: inspect.isroutine(v) or inspect.isclass(v)):
        is_own = name in found.__all__ if hasattr(found, "__all__") else value.__module__ == module
        if is_own and not name.startswith("_"):
            objects[f"{module}.{name}"] = value
            for key, member in vars(value).items() if inspect.isclass(value) else ():
                if inspect.isroutine(member) and not key.startswith("_"):
                    objects[f"{module}.{name}.{key}"] = member
    for name, value in objects.items():
        if isinstance(value.__doc__, str):
            yield name, inspect.cleandoc(value.__doc__)


@node(output_name="text")
def clean(name: str, doc: str) -> str:
    """Return the first paragraph that is prose, with the name spelled as words."""
    paragraphs = (
        " ".join(line for line in map(str.strip, paragraph.splitlines()) if not _SIGNATURE.fullmatch(line))
        for paragraph in doc.split("\n\n")
    )
    return f"{next(filter(None, paragraphs), '')} ({re.sub(r'[._]+', ' ', name)})"


@node(output_name="vector")
def embed(text: str, model: Embedder) -> Vector:
    """Turn a text into its vector."""
    return model.embed(text)


@node(output_name=("keys", "matrix"))
def index(
    modules: list[str], names: list[list[str]], vectors: list[list[Vector]]
) -> tuple[list[tuple[str, str]], Vector]:
    """Stack all vectors into one matrix, with module and name of each row."""
    keys = [(module, name) for module, own in zip(modules, names, strict=True) for name in own]
    return keys, np.array(list(chain.from_iterable(vectors)), dtype=np.float32)


@node(output_name="hits")
def rank(keys: list[tuple[str, str]], matrix: Vector, query: Vector, top: int = 3) -> list[Hit]:
    """Return what is closest to a question, the best first."""
    scores = matrix @ query
    return [Hit(*keys[row], float(scores[row])) for row in np.argsort(-scores, kind="stable")[:top]]


entry = Pipeline([clean, embed], name="entry")
module = Pipeline(
    [
        read,
        entry.as_node(
            input_mapping={"names": "name", "docs": "doc"},
            output_mapping={"text": "texts", "vector": "vectors"},
            map_over=("names", "docs"),
        ),
    ],
    name="module",
)
search = Pipeline(
    [embed.rename(inputs={"text": "question"}, outputs={"vector": "query"}), rank],
    name="search",
)
semantic_search = Pipeline(
    [
        module.as_node(input_mapping={"modules": "module"}, map_over="modules"),
        index,
        search.as_node(input_mapping={"questions": "question"}, map_over="questions"),
    ],
    name="semantic_search",
)
