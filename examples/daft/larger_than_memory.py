"""From storage to storage: a data set that is larger than what this process may use of memory.

    python examples/daft/larger_than_memory.py [--megabytes 5120] [--limit 4096]

It writes Parquet files of so many megabytes, forbids itself to use more memory than the limit (as
``ulimit -v`` does), and maps a pipeline over all of them. Rows go from the files through the pipeline into
other files, some at a time; none of them comes to this script. It takes two minutes.
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

# Each thread reserves memory of its own, which counts although it is never used.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")

import daft
import pyarrow as pa
import pyarrow.parquet as pq

from hypernodes import DaftEngine, Pipeline, node

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "nobody", "looks"]
ROWS = 10_000  # in each file
WIDTH = 1000  # characters of each text


@node(output_name="words")
def split(text: str) -> list[str]:
    return text.split()


@node(output_name="count")
def count(words: list[str]) -> int:
    return len(words)


@node(output_name="longest")
def find_longest(words: list[str]) -> str:
    return max(words, key=len)


pipeline = Pipeline([split, count, find_longest], name="measure", engine=DaftEngine(collect=False))


def write(directory: Path, megabytes: int) -> tuple[int, int]:
    """Write files of so many megabytes; return how many rows and bytes they have."""
    pa.set_cpu_count(1)
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


def peak() -> int:
    """Return the most memory, in bytes, that this process has had in use."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=5120, help="of the files")
    parser.add_argument("--limit", type=int, default=4096, help="megabytes that this process may use")
    parser.add_argument("--directory", type=Path, help="for the files; by default one that is deleted")
    options = parser.parse_args()

    directory = options.directory or Path(tempfile.mkdtemp(prefix="hypernodes-"))
    source, made = directory / "texts", directory / "measured"
    source.mkdir(parents=True)
    try:
        rows, size = write(source, options.megabytes)
        print(f"{rows:,} rows in {size / 2**20:,.0f} MB of Parquet files")

        limit, allowed = options.limit << 20, resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit, allowed[1]))
        started = time.perf_counter()
        frame = pipeline.map(daft.read_parquet(f"{source}/*.parquet"), output_name=["count", "longest"])
        frame.write_parquet(str(made))
        seconds = time.perf_counter() - started
        print(f"measured in {seconds:.0f} s, {rows / seconds:,.0f} rows a second")
        print(f"at most {peak() / 2**20:,.0f} MB in use, of {options.limit:,} that were allowed")

        resource.setrlimit(resource.RLIMIT_AS, allowed)  # to look at the result
        result = daft.read_parquet(f"{made}/*.parquet")
        assert result.count_rows() == rows
        print(
            result.groupby("longest").agg(daft.col("count").sum().alias("words")).sort("longest").to_pydict()
        )
    finally:
        if options.directory is None:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
