"""Execution: from a pipeline to its outputs.

current            what code can know of the call and the workers that it runs in
plan               what must run, as data
signature          when are two calls the same?
kept_fingerprints  what code is made of, kept from run to run while it cannot have changed
step_code          what the code of a step is made of, kept beside results
changed_code       whether a run has changed what the code of its nodes reads
cache_warnings     warnings about what is not cached, each emitted once
jobs               what a run hands out to be done, and what comes back
target             the interface of an execution target: the seam for a new backend
provenance         how a result came to be, kept beside it
calls              the one place where a node's function is called
compiled           faster paths for plans that need nothing but calls
scheduler          what can run now, and what follows from a result; no threads, no I/O
in_flight          equal calls are made once in a process
durations          how long functions take, so that short calls travel together
pacing             when a call may begin: rates, limits, delays before retries
driver             carries a run through: does jobs, or has them executed, and feeds outcomes back
driver_on_loop     the same on an event loop, in a worker
local_jobs         the jobs that a driver does itself: look-ups, and chunks of compiled plans
stages             a plan over columns, for batch functions and Daft
execute            what a worker does with a job; the list of all ways in which a node is executed
items              the items of a chunk in a worker whose rows go on as columns
hinted_columns     columns of Arrow for values of a type hint
targets            the execution targets that there are: threads, an event loop, processes, Ray
explain            what a run would find in the cache, and why not the rest
explanation        what `explain` has found, and how that is shown
"""
