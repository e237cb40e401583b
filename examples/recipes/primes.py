"""Numbers on processes: count primes in ranges, with `map_executor="parallel"`.

It prints::

    78498 primes below 1000000
    the most in one of 20 ranges: 5133, from 0
    counted by processes other than this one: True
"""

import os

import numpy as np

from hypernodes import HyperNodesEngine, Pipeline, node

END, PARTS = 1_000_000, 20


@node(output_name=("count", "pid"))
def count_primes(start: int, end: int) -> tuple[int, int]:
    """Count the primes of a range by a sieve over the range."""
    is_prime = np.ones(end - start, dtype=bool)
    is_prime[: max(0, 2 - start)] = False
    for factor in range(2, int(end**0.5) + 1):
        first = max(factor * factor, -(-start // factor) * factor)
        is_prime[first - start :: factor] = False
    return int(is_prime.sum()), os.getpid()


def main() -> None:
    starts = list(range(0, END, END // PARTS))
    ends = [start + END // PARTS for start in starts]
    with HyperNodesEngine(map_executor="parallel") as engine:
        pipeline = Pipeline([count_primes], engine=engine)
        found = pipeline.map({"start": starts, "end": ends}, map_over=["start", "end"])
    print(sum(found["count"]), "primes below", END)
    most, start = max(zip(found["count"], starts, strict=True))
    print(f"the most in one of {PARTS} ranges: {most}, from {start}")
    print("counted by processes other than this one:", os.getpid() not in found["pid"])


if __name__ == "__main__":
    main()
