"""Rows of binary COPY beside an encoder in plain Python, and which attributes jsonb cannot hold beside json's reader."""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collector.exporters.postgres.copying import stored_json
from collector.exporters.postgres.pack import irregular, pack

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.sampled_from(
    ("\0", "a\0b", "\\u0000", "\\\0")
)
JSON = st.dictionaries(
    TEXT,
    st.recursive(
        TEXT | st.integers() | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    ),
    max_size=5,
).map(lambda one: json.dumps(one, ensure_ascii=False))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "b": st.binary(max_size=20),
    "t": TEXT,
    "j": JSON,
    "q": st.integers(-(2**63), 2**63 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "h": st.integers(-(2**15), 2**15 - 1),
    "d": st.floats(allow_nan=False),
    "o": st.booleans(),
}
NUMBERS = {"q": ">q", "i": ">i", "h": ">h", "d": ">d", "o": ">?"}


def without_nul(value: Any) -> Any:
    """What jsonb is to hold."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [without_nul(one) for one in value]
    if isinstance(value, dict):
        return {without_nul(key): without_nul(one) for key, one in value.items()}
    return value


def encoded(kind: str, value: Any) -> bytes:
    """One field, but for JSON."""
    if value is None:
        return b"\xff\xff\xff\xff"
    if kind == "b":
        content = value
    elif kind == "t":
        content = value.replace("\0", "\ufffd").encode()
    elif kind == "j":
        content = b"\1" + stored_json(value).encode()
    else:
        content = struct.pack(NUMBERS[kind], value)
    return struct.pack(">i", len(content)) + content


@given(st.data())
def test_rows_are_as_the_documentation_has_them(data: st.DataObject) -> None:
    kinds = data.draw(st.text("btjqihdo", min_size=1, max_size=6))
    count = data.draw(st.integers(1, 4))
    columns = [[data.draw(VALUES[kind] | st.none()) for _ in range(count)] for kind in kinds]
    expected = b"".join(
        struct.pack(">h", len(kinds))
        + b"".join(encoded(kind, column[row]) for kind, column in zip(kinds, columns, strict=True))
        for row in range(count)
    )
    assert pack(kinds, columns) == expected


@given(JSON)
def test_json_loses_nul_and_nothing_else(text: str) -> None:
    assert json.loads(stored_json(text)) == without_nul(json.loads(text))


@given(st.lists(st.tuples(TEXT, JSON | TEXT.map(json.dumps)), max_size=6))
def test_objects_that_jsonb_does_not_hold_whole_are_known(members: list[tuple[str, str]]) -> None:
    text = "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{value}" for key, value in members) + "}"
    keys = [key for key, _ in members]
    if len(set(keys)) < len(keys) or any("\0" in key for key in keys):
        assert irregular([text]) == [True]
    elif "u0000" not in text:
        assert irregular([text]) == [False]
