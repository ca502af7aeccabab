"""Parsers over batches: layers that find labels in lines when they are asked for.

`json` and `logfmt` look for one label in all lines at once, compiled (`members.py`), and so do the paths of
`json a="b.c"`. The other parsers read each line once, when the first label is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from collector.query import match
from collector.query.logql import members, pairs
from collector.query.logql.column import METADATA, Builder, Entry, nowhere, parsed
from collector.query.logql.escapes import json_text, logfmt_text
from collector.query.logql.layer import ROWS_BETWEEN_CHECKS, Layer, StageLayer
from collector.query.logql.lines import Lines, lines_of
from collector.query.logql.parsers import (
    JSON_ERROR,
    JSON_FAULTS,
    LOGFMT_ERROR,
    Json,
    JsonPaths,
    Logfmt,
    Parser,
    logfmt_fault,
    path_text,
)
from collector.query.logql.row import DETAILS, ERROR, ERRORS, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def parsing(below: Layer, parser: Parser) -> Layer:
    """Return what a parser makes of the lines of a layer."""
    if isinstance(parser, Json | Logfmt):
        return MemberLayer(below, parser)
    if isinstance(parser, JsonPaths):
        return PathLayer(below, parser)
    return LineByLine(below, parser)


class _Find(NamedTuple):
    """The first member of a name in each line."""

    entry: Entry
    starts: NDArray[np.uint32]
    """Where it stands."""

    def narrowed(self, mask: NDArray[np.bool_]) -> _Find:
        return _Find(self.entry.narrowed(mask), self.starts[mask])


def _texts(
    lines: Lines,
    found: members.Found,
    text: Callable[[int, bytes], str],
    plain: tuple[int, ...] = (members.PLAIN, members.SCALAR),
) -> Entry:
    """Return found members as a label; kinds other than the `plain` ones are turned into text one by one."""
    kinds, starts, lengths = found
    builder = Builder(len(kinds), keeps_empty=True)
    is_plain = np.isin(kinds, plain)
    places = np.flatnonzero(is_plain)
    if places.size:
        extents = starts[places], lengths[places]
        codes, firsts = match.distinct(lines.buffer, extents)
        strings = match.strings(lines.buffer, extents[0][firsts], extents[1][firsts])
        known = np.array([builder.code(each.replace("\ufffd", " ")) for each in strings], np.intp)
        builder.codes[places] = known[codes]
    for place in np.flatnonzero(~is_plain & (kinds != members.NONE)).tolist():
        start = int(starts[place])
        raw = bytes(memoryview(lines.buffer)[start : start + int(lengths[place])])
        builder.codes[place] = builder.code(text(int(kinds[place]), raw))
    return parsed(builder.codes, builder.values)


def _faults(error: str, codes: NDArray[np.intp], details: list[str]) -> dict[str, Entry]:
    return {ERROR: parsed((codes != 0).astype(np.intp), ["", error]), DETAILS: parsed(codes, details)}


class _FindingLayer(StageLayer):
    """A parser whose faults are known apart from its labels."""

    def __init__(self, below: Layer) -> None:
        super().__init__(below)
        self._known_faults: dict[str, Entry] | None = None
        self._known: dict[str, Entry] = {}

    def narrowed(self, mask: NDArray[np.bool_]) -> Self:
        """See `Layer.narrowed`."""
        layer = super().narrowed(mask)
        layer._known = {name: entry.narrowed(mask) for name, entry in self._known.items()}
        if self._known_faults is not None:
            layer._known_faults = {name: entry.narrowed(mask) for name, entry in self._known_faults.items()}
        return layer

    def _extracted(self, name: str) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.below.extracted(name) | (self._found(name).codes != 0)
        return found

    def _entry(self, name: str) -> Entry:
        below = self.below.entry(name)
        if name not in ERRORS:
            return below.under(self._found(name))
        if self._known_faults is None:
            self._known_faults = self._faults()
        return below.under(self._known_faults[name])

    def _found(self, name: str) -> Entry:
        """Return what the parser sets of a name."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self._looked_up(name)
        return found

    def _looked_up(self, name: str) -> Entry:
        raise NotImplementedError

    def _faults(self) -> dict[str, Entry]:
        raise NotImplementedError


class MemberLayer(_FindingLayer):
    """`json` or `logfmt`: all members, each looked for when it is asked for."""

    def __init__(self, below: Layer, parser: Json | Logfmt) -> None:
        super().__init__(below)
        self._parser = parser
        self._finds: dict[str, _Find] = {}

    def narrowed(self, mask: NDArray[np.bool_]) -> MemberLayer:
        """See `Layer.narrowed`."""
        layer = super().narrowed(mask)
        layer._finds = {name: find.narrowed(mask) for name, find in self._finds.items()}
        return layer

    def _looked_up(self, name: str) -> Entry:
        find = self._find(name)
        found = find.entry.without(self.below.taken(name))
        stem = name.removesuffix(SUFFIX)
        if stem and stem != name:
            other = self._find(stem)
            aside = other.entry.without(~self.below.taken(stem))
            later = (found.codes != 0) & (find.starts < other.starts)
            found = found.under(aside.without(later))
        return found.without(self.below.extracted(name))

    def _find(self, name: str) -> _Find:
        find = self._finds.get(name)
        if find is None:
            lines, parser = self.lines, self._parser
            place = (lines.buffer, lines.starts, lines.lengths)
            if isinstance(parser, Json):
                found = members.json_member(*place, name.encode())
            else:
                found = pairs.logfmt_member(*place, name.encode(), parser.keep_empty, parser.strict)
            text = json_text if isinstance(parser, Json) else logfmt_text
            find = self._finds[name] = _Find(_texts(lines, found, lambda _, raw: text(raw)), found[1])
        return find

    def _faults(self) -> dict[str, Entry]:
        lines, parser = self.lines, self._parser
        place = (lines.buffer, lines.starts, lines.lengths)
        if isinstance(parser, Json):
            return _faults(JSON_ERROR, members.json_status(*place).astype(np.intp), JSON_FAULTS)
        codes, details = np.zeros(self.count, np.intp), [""]
        if parser.strict:
            statuses, bytes_, places = pairs.logfmt_status(*place)
            for row in np.flatnonzero(statuses).tolist():
                codes[row] = len(details)
                details.append(logfmt_fault(int(statuses[row]), int(bytes_[row]), int(places[row])))
        return _faults(LOGFMT_ERROR, codes, details)


class PathLayer(_FindingLayer):
    """`json a="b.c"`: each path looked up when its label is asked for."""

    def __init__(self, below: Layer, parser: JsonPaths) -> None:
        super().__init__(below)
        self._paths = parser.paths
        self._finds: dict[int, tuple[Entry, NDArray[np.uint8]]] = {}

    def narrowed(self, mask: NDArray[np.bool_]) -> PathLayer:
        """See `Layer.narrowed`."""
        layer = super().narrowed(mask)
        layer._finds = {place: (entry.narrowed(mask), faults[mask]) for place, (entry, faults) in self._finds.items()}
        return layer

    def _looked_up(self, name: str) -> Entry:
        found = nowhere(self.count)
        stem = name.removesuffix(SUFFIX)
        for place, (label, _) in enumerate(self._paths):
            if label == name:
                entry = self._find(place)[0].without(self.below.taken(name))
                found = found.under(entry)
            elif label == stem:
                found = found.under(self._find(place)[0].without(~self.below.taken(stem)))
        if any(label == name for label, _ in self._paths):
            empty = self._readable() & (found.codes == 0) & (self.below.entry(name).codes == 0)
            found = found.under(parsed(empty.astype(np.intp), ["", ""]))
        return found

    def _find(self, place: int) -> tuple[Entry, NDArray[np.uint8]]:
        find = self._finds.get(place)
        if find is None:
            lines = self.lines
            path = self._paths[place][1]
            kinds, starts, lengths, faults = members.json_path(lines.buffer, lines.starts, lines.lengths, path)
            kinds[~self._readable()] = members.NONE
            plain = (members.PLAIN, members.SCALAR, members.OBJECT)
            find = self._finds[place] = _texts(lines, (kinds, starts, lengths), path_text, plain), faults
        return find

    def _readable(self) -> NDArray[np.bool_]:
        """Tell which lines begin as JSON does."""
        lines = self.lines
        readable: NDArray[np.bool_] = lines.lengths > 0
        if not readable.any():
            return readable
        first = np.frombuffer(lines.buffer, np.uint8)[lines.starts[readable]]
        readable[readable] = np.isin(first, np.frombuffer(b'"{[', np.uint8))
        return readable

    def _faults(self) -> dict[str, Entry]:
        codes = np.where(~self._readable() & (self.lines.lengths > 0), len(JSON_FAULTS), 0)
        for place in range(len(self._paths)):
            faults = self._find(place)[1]
            codes = np.where((faults != 0) & (codes != len(JSON_FAULTS)), faults, codes)
        faults_of = _faults(JSON_ERROR, codes, [*JSON_FAULTS, ""])
        details = faults_of[DETAILS].without(codes == len(JSON_FAULTS))  # such a line leaves earlier details
        return faults_of | {DETAILS: details}


class LineByLine(StageLayer):
    """A parser that reads each line once, as soon as anything is asked of it."""

    def __init__(self, below: Layer, parser: Parser) -> None:
        super().__init__(below)
        self._parser = parser
        self._results: dict[str, Entry] | None = None
        self._result_lines: Lines | None = None

    def narrowed(self, mask: NDArray[np.bool_]) -> LineByLine:
        """See `Layer.narrowed`."""
        layer = super().narrowed(mask)
        if self._results is not None and self._result_lines is not None:
            layer._results = {name: entry.narrowed(mask) for name, entry in self._results.items()}
            layer._result_lines = self._result_lines.narrowed(mask)
        return layer

    def _extracted(self, name: str) -> NDArray[np.bool_]:
        found = self._parsed()[0].get(name)
        before = self.below.extracted(name)
        return before if found is None or name in ERRORS else before | (found.codes != 0)

    def _entry(self, name: str) -> Entry:
        below, found = self.below.entry(name), self._parsed()[0].get(name)
        return below if found is None else below.under(found)

    def _lines(self) -> Lines:
        return self._parsed()[1]

    def _parsed(self) -> tuple[dict[str, Entry], Lines]:
        if self._results is None or self._result_lines is None:
            place = _Place(self.below)
            before = self.below.lines
            texts = before.all()
            changed = False
            for place.row, line in enumerate(texts):
                if place.row % ROWS_BETWEEN_CHECKS == 0:
                    self.check()
                after = self._parser.parse(line, place)
                if after is not line:
                    texts[place.row] = after
                    changed = True
            if changed:
                self.charge(sum(map(len, texts)))
            self._results = place.entries()
            self._result_lines = lines_of(texts) if changed else before
        return self._results, self._result_lines


class _Place:
    """A row of a batch as a parser's `Target`."""

    def __init__(self, below: Layer) -> None:
        self.row = 0
        self._below = below
        self._builders: dict[str, Builder] = {}
        self._in_base: dict[str, list[bool]] = {}
        self._metadata: dict[str, list[bool]] = {}
        self._extracted: dict[str, list[bool]] = {}

    def takes(self, name: str) -> str:
        """See `Target.takes`."""
        if name not in self._in_base:
            self._in_base[name] = self._below.in_base(name).tolist()
            self._metadata[name] = (self._below.entry(name).kinds == METADATA).tolist()
        taken = self._in_base[name][self.row] or (self._metadata[name][self.row] and not self._has_set(name))
        return name + SUFFIX if taken else name

    def has_extracted(self, name: str) -> bool:
        """See `Target.has_extracted`."""
        if name not in self._extracted:
            self._extracted[name] = self._below.extracted(name).tolist()
        return self._extracted[name][self.row] or self._has_set(name)

    def get(self, name: str) -> str | None:
        """See `Target.get`."""
        if self._has_set(name):
            builder = self._builders[name]
            return builder.values[int(builder.codes[self.row])]
        below = self._below.entry(name)
        code = int(below.codes[self.row])
        return below.values[code] if code else None

    def set(self, name: str, text: str) -> None:
        """See `Target.set`."""
        builder = self._builders.get(name)
        if builder is None:
            builder = self._builders[name] = Builder(self._below.count, keeps_empty=True)
        builder.codes[self.row] = builder.code(text)

    def fail(self, error: str, details: str) -> None:
        """See `Target.fail`."""
        self.set(ERROR, error)
        if details:
            self.set(DETAILS, details)

    def entries(self) -> dict[str, Entry]:
        """Return everything that was set."""
        return {name: parsed(builder.codes, builder.values) for name, builder in self._builders.items()}

    def _has_set(self, name: str) -> bool:
        builder = self._builders.get(name)
        return builder is not None and bool(builder.codes[self.row])
