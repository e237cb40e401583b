"""Ask a service that answers twenty requests a second, sixty times, and lose nothing.

    python examples/services/fetch.py
    python examples/services/fetch.py --executor parallel
    python examples/services/fetch.py --executor ray

The service is a real HTTP server in this process. Beyond twenty requests in a second it answers 429, "too
many requests", with a Retry-After. The first pipeline only repeats its calls; the second one obeys.
"""

from __future__ import annotations

import argparse
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hypernodes import HyperNodesEngine, Pipeline, node

CALLS = 60
PER_SECOND = 20


def fetch(url: str, number: int) -> str:
    with urllib.request.urlopen(f"{url}/{number}", timeout=20) as response:
        return response.read().decode()


def as_asked(attempt: int, error: Exception) -> float | None:
    """Return the seconds that the service asks to wait; give up on any other error than 429."""
    if isinstance(error, urllib.error.HTTPError) and error.code == 429:
        return float(error.headers.get("Retry-After", attempt))
    return None


hasty = node(fetch, output_name="answer", retries=5)
polite = node(fetch, output_name="answer", retries=5, retry_delay=as_asked, rate="18/s", max_concurrent=8)


class Service(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.answered: list[float] = []
        self.requests = 0


class Answer(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        service, now = self.server, time.monotonic()
        with service.lock:
            service.requests += 1
            service.answered = [when for when in service.answered if now - when < 1]
            is_answered = len(service.answered) < PER_SECOND
            if is_answered:
                service.answered.append(now)
        self.send_response(200 if is_answered else 429)
        if not is_answered:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(f"answer to {self.path}".encode())

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executor", default="threaded", help="sequential, async, threaded, parallel, ray")
    options = parser.parse_args()
    for name, asking in (("hasty", hasty), ("polite", polite)):
        service = Service()
        threading.Thread(target=service.serve_forever, daemon=True).start()
        with HyperNodesEngine(map_executor=options.executor) as engine:
            started = time.perf_counter()
            answers = Pipeline([asking], engine=engine).map(
                {"url": service.url, "number": list(range(CALLS))}, map_over="number", on_error="return"
            )["answer"]
            seconds = time.perf_counter() - started
        lost = sum(isinstance(answer, Exception) for answer in answers)
        print(f"{name}: {service.requests} requests, {lost} of {CALLS} calls lost, {seconds:.2f} s")
        service.shutdown()
        service.server_close()
    print(f"ideal: {CALLS} requests, 0 of {CALLS} calls lost, {CALLS / PER_SECOND:.2f} s")


if __name__ == "__main__":
    main()
