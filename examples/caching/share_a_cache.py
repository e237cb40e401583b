"""Two hosts, each with a disk of its own, share results through a tier behind their disks.

    python examples/caching/share_a_cache.py
    python examples/caching/share_a_cache.py s3://bucket/prefix

Without an address the tier is a directory (`file://`), as on NFS or Lustre: the example needs nothing.
A bucket takes its credentials from the environment: AWS_ACCESS_KEY_ID and so on.
"""

import sys
import tempfile
import time
from pathlib import Path

from hypernodes import DiskCache, Pipeline, PipelineCallback, node


@node(output_name="embedding")
def embed(text):
    time.sleep(0.01)  # a model
    return [len(text), text.count("e")]


class Count(PipelineCallback):
    """Counts the calls of nodes."""

    def __init__(self):
        self.computed = 0

    def on_node_end(self, *event):
        del event
        self.computed += 1


def run_on(host: Path, remote: str) -> None:
    """Run the pipeline as a host does that has only its own disk and the address of the tier."""
    count = Count()
    with DiskCache(host / "cache", remote=remote) as cache:
        pipeline = Pipeline([embed], cache=cache, callbacks=[count])
        pipeline.map({"text": [f"text {number}" for number in range(200)]}, map_over="text")
        print(f"{host.name}: {count.computed} computed, {200 - count.computed} from the cache")


def main() -> None:
    """Run the pipeline on two hosts, and on the first one again."""
    with tempfile.TemporaryDirectory() as directory:
        remote = sys.argv[1] if len(sys.argv) > 1 else (Path(directory) / "shared").as_uri()
        run_on(Path(directory) / "first host", remote)
        run_on(Path(directory) / "second host", remote)
        run_on(Path(directory) / "first host", remote)
        with DiskCache(Path(directory) / "third host", remote=remote) as cache:
            print(f"the tier: {cache.remote_stats().entries} entries")


if __name__ == "__main__":
    main()
