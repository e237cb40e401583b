"""A real HTTP server that answers 429 beyond so many requests in a second, and nodes that ask it."""

import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hypernodes import node


class Service(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, per_second=10**9, seconds=0.0, fails_first=0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.per_second, self.seconds, self.fails_first = per_second, seconds, fails_first
        self.lock = threading.Lock()
        self.times = []
        self.asked = Counter()
        self.refused = 0
        self.under_way = self.most_under_way = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        service = self.server
        with service.lock:
            now = time.monotonic()
            service.times = [when for when in service.times if now - when < 1.0]
            service.asked[self.path] += 1
            is_refused = (
                len(service.times) >= service.per_second or service.asked[self.path] <= service.fails_first
            )
            service.refused += is_refused
            if not is_refused:
                service.times.append(now)
            service.under_way += 1
            service.most_under_way = max(service.most_under_way, service.under_way)
        time.sleep(service.seconds)
        with service.lock:
            service.under_way -= 1
        self.send_response(429 if is_refused else 200)
        if is_refused:
            self.send_header("Retry-After", "0.2")
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_):
        pass


@contextmanager
def serving(**options):
    service = Service(**options)
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join()


def ask(url, number):
    with urllib.request.urlopen(f"{url}/{number}", timeout=20) as response:
        return response.read().decode()


def retry_after(attempt, error):
    """What the server asks for; the headers are there where the call was made."""
    return float(error.headers["Retry-After"]) if isinstance(error, urllib.error.HTTPError) else None


def asking(**options):
    return node(ask, output_name="answer", **options)
