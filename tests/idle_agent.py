"""Stands in for an agent of a raylet, since each imports for a second or two when its raylet starts.

A raylet waits for the ports of its agents, ends with them, and lets them end by themselves. The agent for
metrics is not started at all: a port of -1 says so, as in a Ray that was installed without its dashboard. The
agent for runtime environments is started when the raylet calls it first.
"""

import os
import socket
import subprocess
import sys
import threading
import time

PORTS_OF_METRICS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
PORT_OF_ENVIRONMENTS = "runtime_env_agent_port"
POLL_INTERVAL_S = 0.5
START_TIMEOUT_S = 60


def options_of(command):
    """Return the options of a command, ``--name=value``."""
    return dict(part[2:].split("=", 1) for part in command if part.startswith("--") and "=" in part)


def write_port(options, name, port):
    """Tell the raylet the port of a service."""
    path = os.path.join(options["session-dir"], f"{name}_{options['node-id']}")
    with open(f"{path}.new", "w") as file:
        file.write(str(port))
    os.rename(f"{path}.new", path)


def serve(command, raylet):
    """Pass connections on to Ray's own agent, which is started for the first one."""
    options = options_of(command)
    host, started = options["node-ip-address"], None
    with socket.create_server((host, 0)) as server:
        server.settimeout(POLL_INTERVAL_S)
        write_port(options, PORT_OF_ENVIRONMENTS, server.getsockname()[1])
        while os.getppid() == raylet:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            started = started or start(command, host)
            threading.Thread(target=pass_on, args=(connection, started), daemon=True).start()


def start(command, host):
    """Start Ray's own agent, and return its address."""
    with socket.create_server((host, 0)) as free:
        address = free.getsockname()
    own = f"--runtime-env-agent-port={address[1]}"
    subprocess.Popen([own if part.startswith("--runtime-env-agent-port=") else part for part in command])
    return address


def pass_on(connection, address):
    """Copy what comes from a connection to an address, and what comes back."""
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            agent = socket.create_connection(address)
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    threading.Thread(target=copy, args=(agent, connection), daemon=True).start()
    copy(connection, agent)


def copy(source, target):
    """Copy the bytes of a connection to another one until it ends."""
    while part := source.recv(65536):
        target.sendall(part)
    target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    raylet, (_, agent, *command) = os.getppid(), sys.argv
    if agent == "runtime_env":
        serve(command, raylet)
    else:
        for port in PORTS_OF_METRICS:
            write_port(options_of(command), port, -1)
        while os.getppid() == raylet:
            time.sleep(POLL_INTERVAL_S)
