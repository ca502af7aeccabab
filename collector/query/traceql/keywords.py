"""What a condition on single spans asks of their texts (`otlp/terms.py`), for the key indexes of the log.

* `field = "text"`: one of the texts of the span, its events, its links, its resource or its scope is the text. Which of
  them it is decides the condition itself: an attribute without a scope may be the span's or its resource's.
* `field =~ "expression"`: what any match must contain (`required.py`).
* `&&` asks for what either side asks, `||` for the most telling of each side. `!`, and comparisons of any other kind, say
  nothing; nor does what is asked of other spans (`parent.a`, `rootName`), or of ids.

An array holds the text as one of its elements, which are texts of the span, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from collector.otlp.terms import TERMS_MAX, Sought, either
from collector.otlp.texts import ATTRIBUTE
from collector.query.required import required
from collector.query.traceql.ast import Attribute, Binary, Expression, Intrinsic, Literal

if TYPE_CHECKING:
    from collector.otlp.terms import Term, Terms

_TEXTS: Final = frozenset(
    ("span:name", "span:statusMessage", "event:name", "instrumentation:name", "instrumentation:version")
)
"""The intrinsics that stand among a span's texts."""


def terms(condition: Expression | None) -> Terms:
    """Return what a condition asks of texts."""
    return tuple(_terms(condition)[:TERMS_MAX])


def _terms(node: Expression | None) -> list[Term]:
    match node:
        case Binary(op="&&"):
            return [*_terms(node.left), *_terms(node.right)]
        case Binary(op="||"):
            return either((_terms(node.left), _terms(node.right)))
        case Binary(op="=", left=field, right=Literal(value=str(text))) if _is_text(field):
            return _equal(text)
        case Binary(op="=", left=Literal(value=str(text)), right=field) if _is_text(field):
            return _equal(text)
        case Binary(op="=~", left=field, right=Literal(value=str(text))) if _is_text(field):
            return [tuple(Sought(ATTRIBUTE, one.encode(), whole=False) for one in texts) for texts in required(text)]
    return []


def _equal(text: str) -> list[Term]:
    return [(Sought(ATTRIBUTE, text.encode(), whole=True),)] if text else []


def _is_text(node: Expression) -> bool:
    """Tell whether a field's text stands among those of its span."""
    if isinstance(node, Attribute):
        return not node.parent
    return isinstance(node, Intrinsic) and node.name in _TEXTS
