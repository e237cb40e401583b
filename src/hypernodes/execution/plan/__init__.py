"""Plans: what must run to get from given inputs to wanted outputs.

model      the plan as data: steps, targets, subscribed hooks
build      from a pipeline to its plan, from the outputs backwards
placement  which execution target a plan's calls and map items go to
needs      what a plan needs, so that a fast path can say whether it supports it
variants   plans derived from a plan: as run inside a chunk, for one item, with other events
"""
