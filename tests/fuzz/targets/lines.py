"""What LogQL's stages do with lines and templates that strangers write.

`lines`: any bytes are walked as JSON and as logfmt, one line at a time and several at once, by name, by path and as a
whole; all of these tell the same, and as the naive evaluator tells it where the bytes are UTF-8. `templates`: any text is
a template that is executed, or fails with words.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from collector.query.logql import members, pairs
from collector.query.logql.template import Template, TemplateError, TemplateFailure
from tests.fuzz.target import Target
from tests.fuzz.texts import pieces, text_of
from tests.query.logql import naive

LINES = (
    '{"a":1,"b":{"c d":"x\\n","e":[1,{"f":2}]},"g":null,"1h":"\\ud83d\\ude00","a":true} tail',
    '[{"a":"x"},{"a":[1,2]}]',
    'level=info msg="a \\"b\\"" took=1.5s x= y =z "q" b="open',
    '{"_entry":"x","a":"b"}',
)
TEMPLATES = (
    '{{ .a | replace "x" "y" | trunc 5 | upper }}{{- /* c */ -}}{{ if eq .a "b" }}{{ .b }}{{ else if .c }}d{{ else }}e{{ end }}',
    "{{ range $i, $q := fromJson .j }}{{ $i }}{{ $q.n }}{{ break }}{{ else }}x{{ end }}{{ with $x := .a }}{{ $x }}{{ end }}",
    '{{ __timestamp__ | date "2006-01-02T15:04:05.000Z07:00 Mon Jan _2 MST" }}{{ toDateInZone "2006-01-02" "UTC" .a | unixEpoch }}',
    '{{ printf "%-5s|%05d|%.2f|%x|%q|%v|%*d" .a 5 1.5 255 "q" true 3 4 }}{{ add 1 .n }}{{ divf 1 3 }}{{ round 1.5 1 }}',
    '{{ regexReplaceAll "(a*)b" .a "${1}$x" }}{{ count "." .a }}{{ index (fromJson "[1]") 0 }}{{ slice .a 0 1 }}{{ b64dec .a }}',
)
_LABELS = {"a": "ab é", "b": "2", "j": '[{"n":1},{"n":[2]}]', "n": "42"}


def _walk(data: bytes) -> None:
    lines = data.split(b"\n")[:8]
    lengths = np.array([len(line) for line in lines], np.uint32)
    place = (data, (np.cumsum(lengths + 1) - lengths - 1).astype(np.uint32), lengths)
    statuses, faults = members.json_status(*place), pairs.logfmt_status(*place)[0]
    for row, line in enumerate(lines):
        listed, status = members.json_members(line)
        assert status == statuses[row]
        members.json_top(line)
        told = pairs.logfmt_members(line, strict=False)
        assert pairs.logfmt_members(line, strict=True) == told or faults[row]
        if status != members.TOO_DEEP and _is_text(line):
            assert bool(status) == _broken(line.decode())
        for found, member in ((listed, members.json_member), (told, None)):
            for name in [each[0] for each in found[:4]]:
                first = next(each for each in found if each[0] == name)
                at = member(*place, name) if member else pairs.logfmt_member(*place, name, True, False)
                assert (at[0][row], int(at[1][row]) - int(place[1][row]), at[2][row]) == first[1:] or not first[3]
    members.json_path(*place, [b"a", 0, b"b"])
    members.json_path(*place, [b"b", b"c d"])


def _is_text(line: bytes) -> bool:
    try:
        return "\\u" not in line.decode()  # of which the naive evaluator does not know everything
    except UnicodeDecodeError:
        return False


def _broken(line: str) -> bool:
    try:
        list(naive.flat(line, []))
    except (naive.Broken, RecursionError):
        return True
    return False


def _render(data: bytes) -> None:
    try:
        template = Template(text_of(data), "line", lambda: 10**18)
    except TemplateError as error:
        str(error).encode()
        return
    shown = {name: text for name, text in _LABELS.items() if template.labels is None or name in template.labels}
    results = []
    for labels in (_LABELS, shown):  # what it does not look at changes nothing
        try:
            results.append(template.render(labels, "a line é", 1_700_000_000_123_456_789))
        except TemplateFailure as failure:
            results.append(str(failure))
    results[0].encode("utf-8", "surrogatepass")
    assert results[0] == results[1]


def _line_seeds() -> Iterator[bytes]:
    for line in LINES:
        yield line.encode()
    yield "\n".join(LINES).encode()


def _template_seeds() -> Iterator[bytes]:
    for template in TEMPLATES:
        yield template.encode()


TARGETS = [
    Target("lines", _walk, _line_seeds, pieces(LINES)),
    Target("templates", _render, _template_seeds, pieces(TEMPLATES), length_max=1024),
]
