"""Forks the worker processes of Ray from one process that has imported what they import.

Ray starts a worker as a program that imports Ray to look at the runtime environment, and executes another one
then, which imports Ray again: a second, for tests that take less. Here, the program that a raylet starts asks
a process of its cluster for a fork, which goes on as Ray's own program for workers.

Each worker imports Ray itself, which reads the environment then, and whose random ids would be the same in
all forks. Ray's own programs start workers with a runtime environment, and all workers of clusters that are
started from a shell.
"""

import json
import os
import signal
import socket
import sys

CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="
POLL_INTERVAL_S = 0.5
LENGTH_BYTES = 8
PRELOADED = (
    *("aiohttp", "filelock", "google.protobuf.descriptor_pool", "jsonschema", "psutil", "requests", "tqdm"),
    *("uvloop", "wcwidth", "yaml"),
    *("hypothesis", "numpy", "pandas", "pyarrow.compute", "pyarrow.parquet", "pytest"),
    "hypernodes.execution.execute",
)
"""What Ray imports, what modules of tests import, and what workers import of this package."""


def ask(address, command):
    """Ask for a fork that runs a command: an interpreter, the programs for setup and for workers, options."""
    contexts = {part.removeprefix(CONTEXT) for part in command if part.startswith(CONTEXT)}
    if contexts - {"", "{}"}:
        os.execv(command[0], command)
    program = [part for part in command[2:] if not part.startswith((CONTEXT, LANGUAGE))]
    blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
    asked = json.dumps([program, os.getcwd(), dict(os.environ), blocked]).encode()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
        except (
            OSError
        ):  # The process that forks has not begun, or has ended: then Ray's own programs start one.
            os.execv(command[0], command)
        socket.send_fds(server, [len(asked).to_bytes(LENGTH_BYTES, "big")], [1, 2])
        server.sendall(asked)
        server.recv(1)  # The fork closes the connection when it has read all.


def serve(address):
    """Fork until the parent process has ended, and return in each fork what is asked of it."""
    import importlib

    owner = os.getppid()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(64)
        server.settimeout(POLL_INTERVAL_S)
        for name in PRELOADED:
            importlib.import_module(name)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Forks that have ended are no zombies.
        while os.getppid() == owner:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            with connection:
                if os.fork() == 0:
                    return receive(connection)
    return None


def receive(connection):
    """Return what a program asks for, and write where it writes."""
    head, descriptors, _, _ = socket.recv_fds(connection, LENGTH_BYTES, 2)
    with connection.makefile("rb") as file:
        asked = file.read(int.from_bytes(head, "big"))
    for target, descriptor in zip((1, 2), descriptors, strict=True):
        os.dup2(descriptor, target)
        os.close(descriptor)
    return json.loads(asked)


def become_worker(program, directory, environment, blocked):
    """Go on as Ray's program for workers."""
    import runpy

    import numpy as np

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()  # noqa: NPY002  # Nodes may use this generator; that of Python does this by itself.
    sys.argv[:] = program
    sys.path[0] = os.path.dirname(program[0])
    runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    role, address, *command = sys.argv[1:]
    if role == "ask":
        ask(address, command)
    elif asked := serve(address):
        become_worker(*asked)
