"""Mistakes that type hints show before anything runs.

    python examples/types/orders.py

The first pipeline is wired wrongly, which is an error where it is made. The second one is right, and gets an
order that is not.
"""

from __future__ import annotations

from typing import TypedDict

from hypernodes import Pipeline, node
from hypernodes.exceptions import InputTypeError, TypeHintError


class Order(TypedDict):
    item: str
    count: int


PRICES = {"pen": 1.5, "book": 12.0}


@node(output_name="price")
def look_up(order: Order) -> float:
    return PRICES[order["item"]]


@node(output_name="total")
def add_up(order: Order, price: float) -> float:
    return order["count"] * price


@node(output_name="total")
def add_cents(order: Order, price: int) -> int:
    return order["count"] * price


@node(output_name="sum")
def sum_up(totals: list[float]) -> float:
    return sum(totals)


def main() -> None:
    try:
        Pipeline([look_up, add_cents], name="in cents")
    except TypeHintError as error:
        print(f"not made: {error}")

    single = Pipeline([look_up, add_up], name="order")
    each = single.as_node({"orders": "order"}, {"total": "totals"}, map_over="orders")
    pipeline = Pipeline([each, sum_up], name="orders")
    orders = [{"item": "pen", "count": 2}, {"item": "book", "count": "1"}]
    try:
        pipeline.validate({"orders": orders})
    except InputTypeError as error:
        print(f"not run: {error}")
    orders[1]["count"] = 1
    pipeline.validate({"orders": orders})
    print(f"the sum is {pipeline(orders=orders)['sum']}")


if __name__ == "__main__":
    main()
