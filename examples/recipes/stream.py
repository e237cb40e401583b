"""Results while they are computed, from a source that does not end: `imap`.

It prints::

    reading 0 gave 0 degrees
    reading 1 gave 7 degrees
    reading 2 gave 14 degrees
    reading 3 could not be read: ValueError: the sensor is off
    reading 4 gave 28 degrees
    alarm at reading 5: 35 degrees
"""

from collections.abc import Iterator
from itertools import count

from hypernodes import HyperNodesEngine, Pipeline, node

LIMIT = 30


@node(output_name="degrees")
def convert(reading: str) -> int:
    if reading == "off":
        raise ValueError("the sensor is off")
    return int(reading.removesuffix("C"))


def readings() -> Iterator[str]:
    for number in count():
        yield "off" if number == 3 else f"{7 * number}C"


def main() -> None:
    with HyperNodesEngine(map_executor="threaded") as engine:
        stream = Pipeline([convert], engine=engine).imap(
            {"reading": readings()}, map_over="reading", on_error="return"
        )
        for index, row in stream:
            if isinstance(row, Exception):
                print(f"reading {index} could not be read: {type(row).__name__}: {row}")
                continue
            if row["degrees"] > LIMIT:
                print(f"alarm at reading {index}: {row['degrees']} degrees")
                break
            print(f"reading {index} gave {row['degrees']} degrees")
        stream.close()  # what is under way is cancelled


if __name__ == "__main__":
    main()
