"""The flow of data and control in one code object: where do values come from, and which code runs when?

All answers are conservative: where the instructions do not have exactly a known form, the answer is the
one from which nothing favourable follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypernodes.cache.bytecode import ENDS_FLOW, NO_INSTRUCTION, normalized_instructions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from types import CodeType

    from hypernodes.cache.bytecode import Instruction

LOADS: Final = frozenset(["LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE", "LOAD_CLASSDEREF"])
STORES: Final = frozenset(["STORE_FAST", "STORE_DEREF"])
_ENDS_STATEMENT: Final = ("STORE_ATTR", "STORE_SUBSCR", "POP_TOP", "RETURN_VALUE")
_MISSING_ATTRIBUTE_ERRORS: Final = ("AttributeError",)
_MISSING_ITEM_ERRORS: Final = ("KeyError", "LookupError")
_HAS_VARARGS: Final = 0x04  # a flag of code objects
_HAS_VARKEYWORDS: Final = 0x08  # a flag of code objects
_LOAD_NONE: Final = ("LOAD_CONST", None)
_ADDING_METHODS: Final = ("add", "append", "appendleft", "extend")
_NEVER_GOES_ON: Final = ENDS_FLOW | {"JUMP_FORWARD"}
_MAX_CALL_LENGTH: Final = 12
"""Instructions in which a call of ``get`` must be complete to be recognized."""
_ASSIGNMENT_ROUNDS: Final = 3
"""Assignments in a row through which a value is followed."""


class CodeFlow:
    """The instructions of one code object, and what is known of their order and their values."""

    def __init__(self, code: CodeType, owner: str | None) -> None:
        self.ops = normalized_instructions(code)
        is_rebound = any(op.name in STORES and op.argument == owner for op in self.ops)
        self.owner = None if is_rebound else owner
        count = code.co_argcount + code.co_kwonlyargcount
        count += bool(code.co_flags & _HAS_VARARGS) + bool(code.co_flags & _HAS_VARKEYWORDS)
        self._parameters = frozenset(code.co_varnames[:count]) | frozenset(code.co_freevars)
        self._parameters -= {owner or ""}
        self.jump_targets = {op.target for op in self.ops if op.target >= 0}

    def op(self, position: int) -> Instruction:
        """Return the instruction at a position; `NO_INSTRUCTION` outside of the code."""
        return self.ops[position] if 0 <= position < len(self.ops) else NO_INSTRUCTION

    # ------------------------------------------------------------------------------------- values

    def loads_owner(self, position: int) -> bool:
        """Return whether an instruction loads the object that the method is called on."""
        op = self.op(position)
        return op.name in LOADS and op.argument == self.owner and self.owner is not None

    def loads_variable(self, position: int) -> bool:
        """Return whether an instruction loads a variable."""
        return self.op(position).name in LOADS or self.op(position).name == "LOAD_GLOBAL"

    def loads_constant(self, position: int) -> bool:
        """Return whether an instruction loads a constant."""
        return self.op(position).name == "LOAD_CONST"

    def producer(self, end: int) -> int:
        """Return the start of the instructions that push the value on top of the stack before ``end``."""
        depth, position = 0, end
        while position > 0 and depth < 1:
            position -= 1
            op = self.ops[position]
            depth += op.effect
            if depth == 1 and op.name == "COPY" and op.argument == 1:
                depth = 0  # The copy has the same producer as the value below it.
        return position

    def is_straight(self, start: int, end: int) -> bool:
        """Return whether no jump leads out of or into a range of instructions."""
        return all(self.ops[position].target < 0 for position in range(start, end)) and not any(
            position in self.jump_targets for position in range(start + 1, end + 1)
        )

    def is_size_check(self, position: int) -> bool:
        """Return whether the length of the attribute that is loaded here is compared with something."""
        return (
            self.op(position - 2)[:2] == ("LOAD_GLOBAL", "len")
            and self.op(position + 1).name == "CALL"
            and "COMPARE_OP" in (self.op(position + 3).name, self.op(position + 4).name)
        )

    def used_parameters(self) -> frozenset[str]:
        """Return the parameters that the code uses, without the object of the method.

        One to which the code only adds something, as in ``log.append(x)``, is not used.
        """
        return self._parameters & {
            str(op.argument)
            for position, op in enumerate(self.ops)
            if op.name in LOADS and self.op(position + 1).argument not in _ADDING_METHODS
        }

    def parameters_in(self, names: Collection[str]) -> frozenset[str]:
        """Return the parameters whose values flow into local variables."""
        reached: set[object] = set(names)
        for _ in range(_ASSIGNMENT_ROUNDS):
            for target, sources, _ in self._assignments():
                if target in reached:
                    reached |= sources
        return frozenset(map(str, reached)) & self._parameters

    def tainted_by(self, attribute: str) -> set[object]:
        """Return an attribute, and the local variables into which its value may flow."""
        tainted: set[object] = {attribute}
        for _ in range(_ASSIGNMENT_ROUNDS):
            for target, sources, attributes in self._assignments():
                if attribute in attributes or tainted & sources:
                    tainted.add(target)
        return tainted

    def names_from_outside(self, begin: int, end: int, attribute: str) -> set[object]:
        """Return the names that a region uses and has not set itself, the attribute included."""
        made: set[object] = set()
        used: set[object] = set()
        for position in range(begin, end):
            op = self.ops[position]
            if op.name in STORES:
                made.add(op.argument)
            elif op.name in LOADS and op.argument not in made:
                used.add(op.argument)
            elif (
                op[:2] == ("LOAD_ATTR", attribute)
                and self.loads_owner(position - 1)
                and self.missing_region(position + 1) is None
                and not self._only_frees_space(position)
            ):
                used.add(attribute)
        return used

    def _only_frees_space(self, position: int) -> bool:
        """Return whether the container that is loaded here is only measured, cleared, or made smaller."""
        if self.is_size_check(position) or self.op(position + 1)[:2] == ("LOAD_ATTR", "clear"):
            return True
        if self.op(position + 1)[:2] != ("LOAD_ATTR", "popitem"):
            return False
        end = position + 3 if self.loads_constant(position + 2) else position + 2
        return (self.op(end).name, self.op(end + 1).name) == ("CALL", "POP_TOP")

    def _assignments(self) -> Sequence[tuple[object, set[object], set[object]]]:
        """Return each local variable that is set, with the variables and attributes in that statement."""
        found = []
        for position, op in enumerate(self.ops):
            if op.name not in STORES:
                continue
            used = self.ops[self.start_of_statement(position) : position]
            found.append(
                (
                    op.argument,
                    {one.argument for one in used if one.name in LOADS},
                    {one.argument for one in used if one.name == "LOAD_ATTR"},
                )
            )
        return found

    def argument_starts(self, call: int) -> list[int]:
        """Return where each argument of a call begins, the first argument first."""
        starts: list[int] = []
        count, start = self.ops[call].argument, call
        for _ in range(count if isinstance(count, int) else 0):
            start = self.producer(start)
            starts.insert(0, start)
        return starts

    def start_of_call(self, call: int) -> int:
        """Return the position after the function that is called."""
        return (*self.argument_starts(call), call)[0]

    def start_of_statement(self, store: int) -> int:
        """Return where the statement begins that an instruction belongs to."""
        start = store
        while start > 0:
            previous = self.ops[start - 1]
            if previous.effect < 0 and previous.name in _ENDS_STATEMENT:
                break
            if previous.target >= 0 and previous.name != "FOR_ITER":
                break
            if previous.name in STORES and self.ops[start].name not in STORES:
                break
            start -= 1
        return start

    # ------------------------------------------------------------------------------------ control

    def missing_region(self, position: int, *, tests_absence: bool = False) -> tuple[int, int] | None:
        """Return start and end of the instructions that run only if a value is missing.

        They come after the jump that tests it. The region is empty if it is not known; ``None`` if the
        instruction is no such jump. `tests_absence` says that the condition is true if the value is missing,
        as for ``k not in d``.
        """
        jump = self.op(position)
        if jump.target <= position or not jump.name.startswith("POP_JUMP_IF_"):
            return None
        skips_if_present = (
            jump.name == "POP_JUMP_IF_FALSE"
            if tests_absence
            else jump.name in ("POP_JUMP_IF_NOT_NONE", "POP_JUMP_IF_TRUE")
        )
        if skips_if_present:
            begin, end = position + 1, jump.target
        elif self.op(jump.target - 1).name in ENDS_FLOW:
            # The branch for a present value returns, so that the rest runs only for a missing one: up to
            # the next position that a jump from before the test leads to.
            later = [op.target for op in self.ops[:position] if op.target > jump.target]
            begin, end = jump.target, min([len(self.ops), *later])
        else:
            return jump.target, jump.target
        for other, op in enumerate(self.ops):
            if begin <= op.target < end and other != position and not begin <= other < end:
                return begin, begin
        return begin, end

    def missing_attribute_regions(self, position: int, attribute: str) -> Iterator[tuple[int, int]]:
        """Yield the regions around a position in which an attribute is known to be missing."""
        regions = self._regions_without_attribute(attribute)
        return ((begin, end) for begin, end in regions if begin <= position < end)

    def has_result(self, begin: int, end: int) -> bool:
        """Return whether a region returns anything but ``None``, or sets a variable that is used later."""
        region = self.ops[begin:end]
        stored = {op.argument for op in region if op.name in STORES}
        if any(op.name in LOADS and op.argument in stored for op in self.ops[end:]):
            return True
        return any(
            op.name == "YIELD_VALUE"
            or (op.name == "RETURN_VALUE" and (self.op(at - 1).name, self.op(at - 1).argument) != _LOAD_NONE)
            for at, op in enumerate(region, begin)
        )

    def missing_item_since(self, position: int, attribute: str) -> Iterator[int]:
        """Yield the starts of the regions around a position in which the item looked up is missing."""
        regions = self._regions_without_item(attribute)
        return (begin for begin, end in regions if begin <= position < end)

    def after_call(self, position: int) -> int:
        """Return the position after a call whose last argument, apart from a constant, is loaded here."""
        position += 1
        if self.loads_constant(position):
            position += 1
        return position + 1 if self.op(position).name == "CALL" else -1

    def _regions_without_attribute(self, attribute: str) -> Iterator[tuple[int, int]]:
        yield from self._regions_after_flag()
        loaded: set[object] = set()  # variables that hold the value of the attribute
        is_read = False
        for position, op in enumerate(self.ops):
            region = None
            if op[:2] == ("LOAD_ATTR", attribute) and self.loads_owner(position - 1):
                is_read = True
                is_copied = self.op(position + 1)[:2] == ("COPY", 1)
                store = position + 1 + is_copied
                if self.op(store).name in STORES:
                    loaded.add(self.op(store).argument)
                    region = self.missing_region(store + 1) if is_copied else None
                else:
                    region = self.missing_region(position + 1) or self._region_of_or(store)
            elif op.name in LOADS and op.argument in loaded:
                region = self.missing_region(position + 1)
            elif op[:2] == ("LOAD_CONST", attribute) and self.op(position - 2).argument in (
                "hasattr",
                "getattr",
            ):
                region = self.missing_region(self.after_call(position))
            elif is_read:
                region = self._handler_of(position, _MISSING_ATTRIBUTE_ERRORS)
            if region is not None:
                yield region

    def _region_of_or(self, position: int) -> tuple[int, int] | None:
        """Return the second operand of ``self._x = self._x or ...``, and the store, if its jump is here."""
        jump = self.op(position)
        if jump.name not in ("JUMP_IF_TRUE_OR_POP", "POP_JUMP_IF_TRUE") or jump.target <= position:
            return None
        is_stored = self.loads_owner(jump.target) and self.op(jump.target + 1).name == "STORE_ATTR"
        return (position + 1, jump.target + 2) if is_stored else None

    def _regions_after_flag(self) -> Iterator[tuple[int, int]]:
        """Yield the regions that run once for an object, since they set the attribute that they depend on."""
        for position, op in enumerate(self.ops):
            if op.name != "LOAD_ATTR" or not self.loads_owner(position - 1):
                continue
            region = self.missing_region(position + 1)
            if region is not None and any(
                self.ops[store][:2] == ("STORE_ATTR", op.argument) and self.loads_owner(store - 1)
                for store in range(*region)
            ):
                yield region

    def _regions_without_item(self, attribute: str) -> Iterator[tuple[int, int]]:
        looked_up: set[object] = set()  # variables that hold the result of ``self._x.get(...)``
        is_read = False
        for position, op in enumerate(self.ops):
            region = None
            if op[:2] == ("LOAD_ATTR", attribute) and self.loads_owner(position - 1):
                is_read = True
                following = self.op(position + 1)
                if following.name == "CONTAINS_OP":
                    region = self.missing_region(position + 2, tests_absence=following.argument == 1)
                elif following[:2] == ("LOAD_ATTR", "get"):
                    looked_up.update(self._result_names(position + 2))
            elif op[:2] == ("LOAD_CONST", attribute) and self.op(position - 2).argument in (
                "hasattr",
                "getattr",
            ):
                continue
            elif op.name in LOADS | STORES and op.argument in looked_up:
                region = self.missing_region(position + 1)
            elif is_read:
                region = self._handler_of(position, _MISSING_ITEM_ERRORS)
                if region is not None:
                    yield from self._regions_after_handler(region)
            if region is not None:
                yield region

    def _handler_of(self, position: int, errors: Sequence[str]) -> tuple[int, int] | None:
        """Return the region of an ``except`` clause for one of some errors that begins here."""
        op, jump = self.op(position), self.op(position + 2)
        if (
            op.name == "LOAD_GLOBAL"
            and op.argument in errors
            and self.op(position + 1).name == "CHECK_EXC_MATCH"
            and jump.target > 0
        ):
            return position + 3, jump.target
        return None

    def _regions_after_handler(self, handler: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """Yield what runs after an ``except`` clause, if nothing else leads there: the ``try`` returns."""
        begin, end = handler
        for position in range(begin, end):
            target = self.ops[position].target
            if target < 0 or begin <= target < end or self.op(target - 1).name not in _NEVER_GOES_ON:
                continue
            after = (target, len(self.ops) if target > position else begin)
            if all(
                not after[0] <= op.target < after[1] or begin <= other < end or after[0] <= other < after[1]
                for other, op in enumerate(self.ops)
            ):
                yield after

    def _result_names(self, position: int) -> Iterator[object]:
        """Yield the variable to which the result of the call that begins here is assigned."""
        for end in range(position, min(position + _MAX_CALL_LENGTH, len(self.ops))):
            if self.ops[end].name == "CALL":
                store = end + 1
                if self.op(store).name == "COPY":
                    store += 1
                if self.op(store).name in STORES:
                    yield self.op(store).argument
                return
