"""The one place where a node's function is called.

call           call one node: contexts, retries, timeout, awaiting, the note on its error
batch          call a node's batch function for several items
node_contexts  the contexts of callbacks around a call
returned       what a function has returned as the values of its outputs
timeout        end a call that takes longer than it may
watchdog       end the process of a call that takes no notice of that
mutation       does a call leave its arguments as they are?
location       the note that says where an error happened
failed_call    a call that has failed, which can be saved and made again
"""
