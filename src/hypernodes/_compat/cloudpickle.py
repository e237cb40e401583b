"""What hypernodes relies on in cloudpickle beyond its documented interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # cloudpickle has no types. Its class extends the one of the standard library.
    from pickle import Pickler
else:
    from cloudpickle import Pickler

__all__ = ["Pickler"]
"""`Pickler` is the class that `cloudpickle.dumps` uses.

Why: a subclass with ``reducer_override`` leaves values out of a pickle that reach the worker in another way,
and one pickler that is used again pickles many small values faster. cloudpickle documents only its functions.
When the class is gone: pickle with `pickle.Pickler`, and use `cloudpickle.dumps` in its ``reducer_override``
for functions and classes.
"""
