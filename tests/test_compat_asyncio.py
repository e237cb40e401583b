"""What `hypernodes._compat` uses of asyncio and nest_asyncio is there, and does what it is used for."""

import asyncio
import sys

import uvloop

from hypernodes._compat.asyncio import running_loop
from hypernodes._compat.nest_asyncio import can_reenter


def test_the_running_loop_is_returned_or_none():
    todo = f"Python {sys.version.split()[0]}: change running_loop in hypernodes/_compat/asyncio.py"

    async def inside():
        return running_loop() is asyncio.get_running_loop()

    assert running_loop() is None, todo
    assert asyncio.run(inside()), todo


def test_a_loop_becomes_reentrant_and_asyncio_run_stays_as_it_is():
    todo = "nest_asyncio has changed: see can_reenter in hypernodes/_compat/nest_asyncio.py"
    run = asyncio.run

    async def inside():
        loop = asyncio.get_running_loop()
        assert can_reenter(loop), todo
        assert getattr(loop, "_nest_patched", False), todo
        return loop.run_until_complete(asyncio.sleep(0, "nested"))

    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(inside()) == "nested", todo
    finally:
        loop.close()
    assert asyncio.run is run, todo


def test_a_loop_that_is_not_written_in_python_is_refused():
    loop = uvloop.new_event_loop()
    try:
        assert not can_reenter(loop)
    finally:
        loop.close()
