"""Execution targets: where jobs are executed. Their interface is `hypernodes.execution.target`.

executor            targets that are `concurrent.futures` executors, made from an alias or given by the user
in_process          workers that share memory with the driver: threads, an event loop
pickled             workers in other processes, behind any foreign executor
on_ray              workers of a Ray cluster: calls placed by resources, results that stay where they are
select              which target an executor is
serialize_jobs      jobs on their way to another process
serialize_outcomes  outcomes on their way back
events              events on their way from a worker to the driver
same_code           whether a worker has the driver's code
diagnose            which part of a job or result cannot be pickled, and whose it is
"""
