"""Pydantic models as the values of a Daft query: what a node returns is what the next one gets.

    python examples/daft/models.py [--runner native|ray]

Daft would make structs of them; here they stay models, with their methods and their checks.
"""

from __future__ import annotations

import argparse

from pydantic import BaseModel, Field, ValidationError

from hypernodes import DaftEngine, Pipeline, node


class Order(BaseModel):
    customer: str
    prices: list[float] = Field(min_length=1)

    @property
    def total(self) -> float:
        return sum(self.prices)


class Invoice(BaseModel):
    order: Order
    amount: float
    reduced: bool


@node(output_name="order")
def parse(line: str) -> Order:
    return Order.model_validate_json(line)


@node(output_name="invoice")
def bill(order: Order, reduction: float) -> Invoice:
    reduced = order.total > 100
    amount = order.total * (1 - reduction) if reduced else order.total
    return Invoice(order=order, amount=round(amount, 2), reduced=reduced)


@node(output_name="text")
def render(invoice: Invoice) -> str:
    note = ", reduced" if invoice.reduced else ""
    return f"{invoice.order.customer}: {invoice.amount:.2f}{note}"


billing = Pipeline([parse, bill, render], name="billing")

LINES = [
    '{"customer": "Ada", "prices": [40, 20.5]}',
    '{"customer": "Grace", "prices": [99, 9.99]}',
    '{"customer": "Edsger", "prices": []}',
    '{"customer": "Barbara", "prices": [250]}',
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runner", choices=["native", "ray"], default="native")
    options = parser.parse_args()

    on_daft = billing.bind(reduction=0.1).with_engine(DaftEngine(runner=options.runner))
    made = on_daft.map({"line": LINES}, map_over="line", on_error="return")
    for invoice, text in zip(made["invoice"], made["text"], strict=True):
        if isinstance(invoice, ValidationError):
            (problem,) = invoice.errors()
            item = invoice.__notes__[0].split(", ")[1]
            print(f"{item} refused: {problem['loc'][0]}: {problem['msg']}")
        else:
            print(f"{text} ({type(invoice).__name__}, of an {type(invoice.order).__name__})")


if __name__ == "__main__":
    main()
