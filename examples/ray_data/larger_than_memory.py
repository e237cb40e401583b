"""From storage to storage: a data set that is larger than the memory of the cluster, with Ray Data.

    python examples/ray_data/larger_than_memory.py [--megabytes 2048] [--store 300]

It writes Parquet files of so many megabytes, starts a Ray on this machine whose object store has room for a
part of them, and maps a pipeline over all of them. Rows go from the files through the pipeline into other
files, some at a time; none of them comes to this script.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from hypernodes import Pipeline, node

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "nobody", "looks"]
ROWS = 10_000  # in each file
WIDTH = 1000  # characters of each text


@node(output_name="words")
def split(text: str) -> list[str]:
    return text.split()


@node(output_name="count")
def count(words: list[str]) -> int:
    return len(words)


@node(output_name="shout")
def shout(text: str) -> str:
    return text.upper()


@node(output_name="peak")
def peak(text: str) -> int:
    """Return the most memory, in MB, that the worker of this row has had in use."""
    del text
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


pipeline = Pipeline([split, count, shout, peak], name="measure")


def write(directory: Path, megabytes: int) -> tuple[int, int]:
    """Write files of so many megabytes; return how many rows and bytes they have."""
    rows = size = 0
    shuffled = random.Random(0)
    paragraphs = [" ".join(shuffled.choices(WORDS, k=WIDTH // 4))[:WIDTH] for _ in range(100)]
    while size < megabytes << 20:
        texts = [f"{number} {paragraphs[number % 100]}" for number in range(rows, rows + ROWS)]
        file = directory / f"{rows:09}.parquet"
        # As they come, so that the files are as large as the texts.
        table = pa.table({"id": range(rows, rows + ROWS), "text": texts})
        pq.write_table(table, file, compression="none", use_dictionary=False, row_group_size=5000)
        rows, size = rows + ROWS, size + file.stat().st_size
    return rows, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2048, help="of the files")
    parser.add_argument("--store", type=int, default=300, help="megabytes of Ray's object store")
    options = parser.parse_args()

    directory = Path(tempfile.mkdtemp(prefix="hypernodes-"))
    source, made = directory / "texts", directory / "measured"
    source.mkdir()
    try:
        rows, size = write(source, options.megabytes)
        print(f"{rows:,} rows in {size / 2**20:,.0f} MB of Parquet files")

        address = os.environ.get("RAY_ADDRESS")  # of a cluster that runs already, whose store is its own
        started_here = {"object_store_memory": options.store << 20, "include_dashboard": False}
        ray.init(address, log_to_driver=False, **({} if address else started_here))
        ray.data.DataContext.get_current().enable_progress_bars = False
        begun = time.perf_counter()
        results = pipeline.map(ray.data.read_parquet(str(source)), output_name=["count", "shout", "peak"])
        results.write_parquet(str(made))
        seconds = time.perf_counter() - begun
        print(f"measured in {seconds:.0f} s, {rows / seconds:,.0f} rows a second")

        written = pq.read_table(made, columns=["count", "peak"])
        assert written.num_rows == rows
        driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"{sum(written['count'].to_pylist()):,} words")
        print(f"at most {driver:,} MB in use here, and {max(written['peak'].to_pylist()):,} MB in a worker")
    finally:
        ray.shutdown()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
