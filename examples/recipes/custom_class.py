"""A class that says what identifies its objects in the cache: `__cache_key__`.

It prints::

    counting in prices
    {'lines': 3}
    {'lines': 3}
    counting in prices
    {'lines': 4}
"""

import tempfile

from hypernodes import DiskCache, Pipeline, node


class Table:
    """A table of a database. Its connection and its statistics do not identify it; its version does."""

    def __init__(self, name: str, version: int, lines: list[str]) -> None:
        self.name = name
        self.version = version
        self.connection = object()  # it has no content that could be hashed
        self.lines = lines
        self.reads = 0

    def __cache_key__(self) -> object:
        return self.name, self.version


@node(output_name="lines")
def count(table: Table) -> int:
    print("counting in", table.name)
    table.reads += 1
    return len(table.lines)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, DiskCache(directory) as cache:
        pipeline = Pipeline([count], cache=cache)
        print(pipeline.run({"table": Table("prices", 1, ["a", "b", "c"])}))
        print(pipeline.run({"table": Table("prices", 1, ["a", "b", "c"])}))  # another object, the same table
        print(pipeline.run({"table": Table("prices", 2, ["a", "b", "c", "d"])}))


if __name__ == "__main__":
    main()
