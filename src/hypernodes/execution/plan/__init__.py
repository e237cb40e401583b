"""Plans: what must run to get from given inputs to wanted outputs.

model         the plan as data: steps, targets, subscribed hooks
build         from a pipeline to its plan, from the outputs backwards
settings      what a plan must know of pipelines and engines, and what a nested pipeline inherits
every_output  which outputs a run computes that is asked for none in particular
engine_call   a nested pipeline whose engine is the user's own, as the function of a call
placement     which execution target a plan's calls and map items go to
needs         what a plan needs, so that a fast path can say whether it supports it
variants      plans derived from a plan: as run inside a chunk, for one item, with other events
output_hints  the return hints of the outputs of a plan
"""
