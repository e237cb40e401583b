"""Serializes functions, values and errors for other processes.

pickling         cloudpickle, with large buffers beside the pickle
pickler          that of cloudpickle, which keeps file names and takes more objects of functools
salvage          what can be read of a pickle of which a part cannot be unpickled
errors           exceptions of every type
remote           values that stay with the worker that computed them
broadcast        values that are serialized once for many jobs, and deserialized once in each process
warning_filters  the filters of `warnings` of the driver, for the calls that workers make
"""
