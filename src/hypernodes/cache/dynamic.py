"""May some code use attributes by names that it does not contain?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.cache.code_flow import CodeFlow

_DYNAMIC_ATTRIBUTES: Final = frozenset(
    [
        "__dict__",
        "__getattribute__",
        "__getstate__",
        "__reduce__",
        "__reduce_ex__",
        "__setattr__",
        "asdict",
        "astuple",
        "getmembers",
    ]
)
_DYNAMIC_GLOBALS: Final = frozenset(
    [
        "asdict",
        "astuple",
        "attrgetter",
        "cloudpickle",
        "delattr",
        "dill",
        "dump",
        "dumps",
        "eval",
        "exec",
        "joblib",
        "pickle",
        "vars",
    ]
)


def dynamic_uses(flow: CodeFlow) -> Iterator[bool]:
    """Yield, for each such use, whether it is one of the object that the method is called on."""
    for position, op in enumerate(flow.ops):
        is_global = op.name == "LOAD_GLOBAL"
        if is_global:
            is_dynamic = op.argument in _DYNAMIC_GLOBALS or op.argument in ("getattr", "setattr")
        else:
            is_dynamic = op.argument in _DYNAMIC_ATTRIBUTES and op.name.startswith(
                ("LOAD_ATTR", "LOAD_SUPER")
            )
        if is_dynamic and op.argument in ("getattr", "setattr", "__setattr__"):
            is_dynamic = not _has_constant_name(flow, position)
        if is_dynamic:
            is_call = is_global and flow.op(position + 2).name != "LOAD_ATTR"
            yield flow.loads_owner(position + 1 if is_call else position - 1)


def _has_constant_name(flow: CodeFlow, position: int) -> bool:
    """Return whether the second argument of the call that begins here is a string constant."""
    for call in range(position + 3, len(flow.ops)):
        if flow.ops[call].name != "CALL":
            continue
        starts = flow.argument_starts(call)
        if len(starts) > 1 and starts[0] == position + 1:
            name = flow.op(starts[1])
            is_one_instruction = starts[1] + 1 == (*starts, call)[2]
            return is_one_instruction and name.name == "LOAD_CONST" and isinstance(name.argument, str)
    return False
