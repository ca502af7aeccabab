"""What a log query asks of the texts of records (`otlp/terms.py`), for the keyword indexes of ring and log.

Only stages that see the record as it came say something: line filters until a stage changes the line, label filters
until a stage adds or changes labels. `drop` and `keep` only take labels away. What a stage does not say for certain is
left out: the filters themselves decide, on fewer lines.

* `|= "text"`: the line has the text. Of `|>`, the texts between its `<_>`.
* `|~ "expression"`: what any match must contain (`required.py`).
* `label = "value"`: one of the record's strings is the value, unless the label's text can come from something else than a
  string: a number, an array, an id, a level that is detected.
* `trace_id = "…"`: the record is of that trace, or one of its strings is the value.
* Selectors likewise. `service_name` has an index of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from collector.otlp.terms import TERMS_MAX, TRACE, Sought, either
from collector.otlp.texts import ATTRIBUTE, BODY
from collector.query.logql import ast
from collector.query.logql.containers import label_name
from collector.query.logql.labels import SERVICE, UNKNOWN_SERVICE
from collector.query.logql.regex import literal
from collector.query.required import required

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.otlp.terms import Term, Terms

_SERVICE_LABEL: Final = label_name(SERVICE)
_NOT_STRINGS: Final = frozenset(
    (
        *("observed_timestamp", "severity_number", "dropped_attributes_count", "flags", "trace_id", "span_id"),
        *("scope_dropped_attributes_count", "detected_level"),
    )
)
"""Labels whose text comes from numbers and ids."""
_TRACE: Final = re.compile("[0-9a-f]{32}")
_OTHER_TEXT: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|true|false|NaN|-?Infinity|\[.*", re.DOTALL)
"""Texts that numbers, truth values and arrays have. Bytes have some, too, of which indexes are told."""


def terms(query: ast.LogQuery) -> Terms:
    """Return what a query asks of texts."""
    found: list[Term] = []
    for matcher in query.selector.matchers:
        if matcher.label != _SERVICE_LABEL:
            found += _label_terms(matcher)
    is_line = is_labels = True
    for stage in query.stages:
        match stage:
            case ast.LineFilter() if is_line:
                found += _line_terms(stage)
            case ast.LabelStage() if is_labels:
                found += _label_terms(stage.condition)
            case ast.LineFilter() | ast.LabelStage() | ast.Drop() | ast.Keep():
                pass
            case ast.Unpack() | ast.LineFormat() | ast.Decolorize():
                is_line = is_labels = False
            case _:
                is_labels = False
    return tuple(found[:TERMS_MAX])


def _line_terms(stage: ast.LineFilter) -> list[Term]:
    if stage.op[0] == "!" or any(operand.address for operand in stage.operands):
        return []
    return either([list(_operand_terms(stage.op, operand.value)) for operand in stage.operands])


def _operand_terms(op: str, value: str) -> Iterator[Term]:
    """Yield what an operand of a line filter asks of the line."""
    if op == "|=":
        yield (Sought(BODY, value.encode(), whole=False),)
    elif op == "|>":
        for text in filter(None, value.split("<_>")):
            yield (Sought(BODY, text.encode(), whole=False),)
    else:
        for texts in required(value):
            yield tuple(Sought(BODY, text.encode(), whole=False) for text in texts)


def _label_terms(condition: ast.LabelFilter) -> list[Term]:
    match condition:
        case ast.And():
            return [term for one in condition.terms for term in _label_terms(one)]
        case ast.Or():
            return either([_label_terms(one) for one in condition.terms])
        case ast.Matcher(op="=" | "=~"):
            value = condition.value if condition.op == "=" else literal(condition.value)
            if condition.label == "trace_id" and value and _TRACE.fullmatch(value):
                is_text = Sought(ATTRIBUTE, value.encode(), whole=True)
                return [(Sought(TRACE, bytes.fromhex(value), whole=True), is_text)]
            if value and _is_of_a_string(condition.label, value):
                return [(Sought(ATTRIBUTE, value.encode(), whole=True),)]
    return []


def _is_of_a_string(label: str, value: str) -> bool:
    """Tell whether a label can have this value from a string only."""
    if label in _NOT_STRINGS or (label == _SERVICE_LABEL and value == UNKNOWN_SERVICE):
        return False
    return _OTHER_TEXT.fullmatch(value) is None
