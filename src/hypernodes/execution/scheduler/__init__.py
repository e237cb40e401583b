"""The scheduler: what can run now, and what follows from a result? No threads, no clocks that wait, no I/O.

    Run ──── ready() ─▶ jobs ─▶ (a driver) ─▶ settle(key, outcome)
     └─ root: PlanRun   one plan over one set of inputs  ─┬─ PlanRun  for a nested pipeline
           or MapRun    one plan over items              ─┴─ MapRun   for one with map_over

run              the state machine, and the jobs that wait in it
state            what all parts of a run share: the queues, the events, how steps are signed
plan_execution   what PlanRun and MapRun have in common: a place, a parent, events
plan_run         one plan over one set of inputs
map_run          one plan over items: as PlanRuns of this run, or in chunks
chunks           the chunks of a map: what was sent together, and what comes back
sent_jobs        what owns jobs for a part of a run
items            where items come from, and where rows go
shared           what is the same for all items of a map, and is computed once
step_lookup      signing the steps of a plan, and looking up their results
lookup           signing items, and what a look-up means for them
item_lookup      which items of a map are looked up, which are known, which wait
pace             how many items are under way, and how many go in a chunk
chunk_size       how many items make a chunk, as a pure function
worker_death     what happens to work whose worker died
item_statistics  how long the items of a plan take, and how many are left
call_groups      which short calls go to a worker together
"""
