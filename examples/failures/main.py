"""Failures as things: look at them, save them, make them again, and compute only them once more.

python examples/failures/main.py
python examples/failures/main.py --executor parallel
hypernodes replay failure.pkl        # in the directory where it was saved
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hypernodes import FailedCall, HyperNodesEngine, Pipeline, node

EXECUTORS = ("sequential", "threaded", "parallel", "ray")
RATES = Path("rates.txt")


@node(output_name="amount", cache=False)
def convert(price: str) -> float:
    """Convert a price to euros, by rates that somebody else writes."""
    value, currency = price.split()
    rates = dict(line.split() for line in RATES.read_text(encoding="utf-8").splitlines())
    return float(value) * float(rates[currency])


@node(output_name="total")
def add(amounts: list[float | Exception]) -> float:
    """Add what could be converted."""
    return sum(amount for amount in amounts if not isinstance(amount, Exception))


converter = Pipeline([convert], name="converter")
totals = Pipeline(
    [
        converter.as_node({"prices": "price"}, {"amount": "amounts"}, map_over="prices", on_error="return"),
        add,
    ],
    name="totals",
)


def main() -> None:
    """Convert prices, one of which fails until its rate is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--executor", choices=EXECUTORS, default="sequential")
    executor = parser.parse_args().executor
    prices = {"price": ["2 EUR", "10 USD", "3 EUR"]}
    RATES.write_text("EUR 1\n", encoding="utf-8")
    with HyperNodesEngine(map_executor=executor) as engine:
        pipeline = converter.with_engine(engine)
        result = pipeline.map(prices, map_over="price", on_error="return")
        print(result)
        print("a nested map: ", totals.with_engine(engine).run({"prices": prices["price"]}, "total"))
        failed = FailedCall.of(result["amount"][1])
        print("saved:        ", failed.save("failure.pkl"), failed.inputs)
        RATES.write_text("EUR 1\nUSD 0.9\n", encoding="utf-8")
        print("made again:   ", FailedCall.load("failure.pkl").replay())
        print("only this one:", pipeline.map(prices, map_over="price", previous=result))


if __name__ == "__main__":
    main()
