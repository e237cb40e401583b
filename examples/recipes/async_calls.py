"""Ask an HTTP API many times at once with an async node, and retry what it refuses.

It prints::

    ada: 1815 to 1852
    grace: 1906 to 1992
    kurt: 1906 to 1978
    emmy: 1882 to 1935
    no answer for nobody: 404 Not Found
    6 requests, at most 3 at once
"""

import asyncio
from http import HTTPStatus

from hypernodes import AsyncExecutor, HyperNodesEngine, Pipeline, node

LIVES = {"ada": (1815, 1852), "grace": (1906, 1992), "kurt": (1906, 1978), "emmy": (1882, 1935)}


class RefusedError(Exception):
    """The server answers with another status than 200."""


@node(output_name="lived", retries=3, retry_on=TimeoutError, retry_delay=0.01, max_concurrent=3)
async def ask(port: int, person: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /{person} HTTP/1.0\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    status = head.partition(" ")[2]
    if status.startswith("503"):
        raise TimeoutError(status)
    if not status.startswith("200"):
        raise RefusedError(status)
    return body


class Api:
    """A server of this process. The first request of all is refused."""

    def __init__(self) -> None:
        self.requests = self.under_way = self.most = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        number, person = self.requests, (await reader.readline()).split()[1].decode().strip("/")
        await asyncio.sleep(0.02)
        known = LIVES.get(person)
        status = HTTPStatus.OK if known else HTTPStatus.NOT_FOUND
        if number == 1:
            status = HTTPStatus.SERVICE_UNAVAILABLE
        body = " to ".join(map(str, known or ()))
        writer.write(f"HTTP/1.0 {status.value} {status.phrase}\r\n\r\n{body}".encode())
        self.under_way -= 1
        writer.close()


async def main() -> None:
    api = Api()
    server = await asyncio.start_server(api.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    people = [*LIVES, "nobody"]
    with AsyncExecutor(max_concurrent=10) as executor:
        pipeline = Pipeline([ask], engine=HyperNodesEngine(map_executor=executor))
        found = await pipeline.amap({"port": port, "person": people}, map_over="person", on_error="return")
    for person, lived in zip(people, found["lived"], strict=True):
        print(f"no answer for {person}: {lived}" if isinstance(lived, Exception) else f"{person}: {lived}")
    print(f"{api.requests} requests, at most {api.most} at once")
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
