"""Execution: what must run for these outputs, and the one place where a node is called.

plan      what must run?                      (built once for each set of inputs and outputs)
steps     the plan as data
signature which code is in the plan?          (once for each run, if there is a cache)
run       what can run now, and what follows from a result?   no threads, no I/O
invoke    call one node
drive     wait for what runs elsewhere, and feed results back
lane      an executor, and what a run must know of it
worker    the other end of a lane
"""
