"""How functions, values and errors travel between processes.

pickling   cloudpickle, with large buffers beside the pickle
errors     a form in which every exception travels
remote     values that stay with the worker that made them
broadcast  values that are serialized once for many jobs, and deserialized once in each process
"""
