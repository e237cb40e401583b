"""Real object stores on this machine. A proxy before S3 counts requests, and can be slow or refuse them."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CREDENTIALS = {
    "AWS_ALLOW_HTTP": "true",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}


AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key of the account that Azurite has; Microsoft's documentation gives it."""


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


@contextlib.contextmanager
def s3_server():
    """Yield the port of a server with the bucket 'bucket'."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while True:
            try:
                make = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
                urllib.request.urlopen(make).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait()


@contextlib.contextmanager
def azure_server(command):
    """Yield the port of Azurite, the emulator of Azure Blob Storage, with the container 'bucket'."""
    port = free_port()
    options = [
        "--inMemoryPersistence",
        "--disableTelemetry",
        "--skipApiVersionCheck",
        "--blobPort",
        str(port),
    ]
    server = subprocess.Popen([command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(_new_container(port)).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


def _new_container(port):
    path = "/devstoreaccount1/bucket"
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    lines = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
    text = "\n".join([*lines, f"/devstoreaccount1{path}", "restype:container"])
    seal = hmac.digest(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256)
    headers["Authorization"] = f"SharedKey devstoreaccount1:{base64.b64encode(seal).decode()}"
    url = f"http://127.0.0.1:{port}{path}?restype=container"
    return urllib.request.Request(url, method="PUT", headers=headers)


class Proxy(ThreadingHTTPServer):
    """Forwards requests to a server."""

    daemon_threads = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.requests = []  # method, path, bytes sent, bytes received
        self.latency = 0.0
        self.refuses = None  # a function of method and path that returns a status
        self.hangs = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def environment(self):
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_port}"}

    def take(self):
        """Return the requests since the last call."""
        taken, self.requests = self.requests, []
        return taken

    def handle_error(self, request, client_address):
        pass  # A client has gone away.


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True

    def _forward(self):
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(proxy.latency)
        while proxy.hangs.is_set():
            time.sleep(0.05)
        status = proxy.refuses(self.command, self.path) if proxy.refuses else None
        if status is None:
            behind = http.client.HTTPConnection("127.0.0.1", proxy.behind)
            behind.request(self.command, self.path, body, dict(self.headers))
            answer = behind.getresponse()
            content, headers, status = answer.read(), answer.getheaders(), answer.status
            behind.close()
        else:
            content, headers = b"<Error><Code>AccessDenied</Code></Error>", []
        proxy.requests.append((self.command, self.path, len(body), len(content)))
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                self.send_header(name, value)
        length = dict(headers).get("Content-Length") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def proxied_s3():
    """Yield a proxy before a server, with the environment of this process set so that clients find it."""
    with s3_server() as port:
        proxy = Proxy(port)
        before = dict(os.environ)
        os.environ.update(proxy.environment)
        try:
            yield proxy
        finally:
            os.environ.clear()
            os.environ.update(before)
            proxy.shutdown()
            proxy.server_close()
