"""What the shop tells about itself when it takes orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from collector.testing.assertions import Otlp


def test_an_order_is_one_trace(otlp: Otlp, client: FlaskClient) -> None:
    client.post("/checkout", json={"items": ["teapot", "mug"], "card": "4111-1111"})

    checkout = otlp.traces.one('{ name = "checkout" && kind = server }')
    assert checkout.service == "shop"
    assert checkout.attributes["order.items"] == 2
    assert checkout.parent is None
    assert [child.name for child in checkout.children] == ["charge card"]
    assert checkout.children[0].duration_ns <= checkout.duration_ns
    otlp.traces.none("{ status = error }")


def test_a_refused_card_is_an_error_with_a_log_line(otlp: Otlp, client: FlaskClient) -> None:
    client.post("/checkout", json={"items": ["teapot"], "card": "4111-0000"})

    charge = otlp.traces.one('{ name = "checkout" } > { span.card.network = "4111" && status = error }')
    assert charge.parent is not None
    assert charge.parent.status_message == "card refused"
    assert [event.name for event in charge.events] == ["exception"]
    line = otlp.logs.one('{service_name="shop"} |= "refused"')
    assert line.severity == "WARN"
    assert line.trace_id == charge.trace_id


def test_orders_are_counted(otlp: Otlp, client: FlaskClient) -> None:
    for card in ("4111-1111", "4111-0000", "4111-1112"):
        client.post("/checkout", json={"items": [], "card": card})

    otlp.metrics.value('sum(orders_total{outcome="placed"})', equals=2)
    otlp.metrics.value("sum(orders_total)", equals=3)
