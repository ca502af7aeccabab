"""Prometheus' text formats: 0.0.4, or OpenMetrics when the client accepts it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.responses import Response

from collector.query.promql.series import float_text

if TYPE_CHECKING:
    from starlette.requests import Request

    from collector.query.promql.translate import Labels

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(slots=True)
class Exposed:
    """A family on its way out: sample lines by label set, so that none stands twice."""

    type: str
    help: str
    lines: dict[tuple[str, Labels], str] = field(default_factory=dict)


def wants_openmetrics(request: Request) -> bool:
    """Tell whether the client accepts OpenMetrics."""
    return "application/openmetrics-text" in request.headers.get("accept", "")


def exposed(body: bytes, *, openmetrics: bool) -> Response:
    """Return the answer to a scrape."""
    return Response(body, headers={"Content-Type": OPEN_METRICS if openmetrics else PLAIN})


def line(name: str, labels: Labels, value: float, exemplar: str = "") -> str:
    """Write one sample; the label `__name__` is left out."""
    inside = label_text(labels)
    braces = f"{{{inside}}}" if inside else ""
    return f"{name}{braces} {float_text(value)}{exemplar}\n"


def label_text(labels: Labels) -> str:
    """Write labels as they stand between braces; `__name__` is left out."""
    return ",".join(f'{key}="{_escaped(text)}"' for key, text in labels if key != "__name__")


def exposition(families: dict[str, Exposed], *, openmetrics: bool) -> tuple[bytes, int]:
    """Write families by name; and tell how many were left out because a sample's name was taken already."""
    parts = []
    left_out = 0
    taken: set[str] = set()
    for name in sorted(families):
        family = families[name]
        own = {sample for sample, _ in family.lines} | {name}
        if own & taken:
            left_out += 1
            continue
        taken |= own
        shown = name
        if openmetrics and family.type == "counter":
            shown = name.removesuffix("_total")
        kind = "info" if openmetrics and name == "target_info" else family.type
        if kind == "info":
            shown = "target"
        parts.append(f"# HELP {shown} {_help(family.help, openmetrics)}\n# TYPE {shown} {kind}\n")
        parts.extend(family.lines.values())
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode(), left_out


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _help(text: str, openmetrics: bool) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if openmetrics else escaped
