"""Serializes functions, values and errors for other processes.

pickling   cloudpickle, with large buffers beside the pickle
errors     exceptions of every type
remote     values that stay with the worker that computed them
broadcast  values that are serialized once for many jobs, and deserialized once in each process
warning_filters  the filters of `warnings` of the driver, for the calls that workers make
"""
