"""Faster paths for plans in which nothing has to happen between calls. See `hypernodes.execution.plan.needs`.

codegen       a plan compiled to a Python function: for one set of inputs, on an event loop, over columns
source        the source of such a function
watched       the events that such a function emits
failed_nodes  which node of such a function has raised
rows          a compiled plan over the items of a chunk
"""
