"""Stages that write: `line_format`, `label_format` and `decolorize`.

Over batches, a template is executed once for every distinct set of the labels that it looks at, or for every line where
it looks at the line or its time. Where it fails, the line gets `__error__="TemplateFormatErr"`, and its text, or the
label, stays as it was. The templates of one `label_format` all see the labels as the first of them found them; renames
before it are done by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import InvalidQuery
from collector.query.logql.column import Builder, Entry, nowhere, parsed
from collector.query.logql.layer import ROWS_BETWEEN_CHECKS, Layer, StageLayer
from collector.query.logql.lines import Lines, lines_of
from collector.query.logql.row import ERROR, ERRORS
from collector.query.logql.template import Template, TemplateError, TemplateFailure
from collector.query.regex import compile_regex

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from collector.query.logql import ast
    from collector.query.logql.columns import Batch
    from collector.query.logql.row import Row

TEMPLATE_ERROR: Final = "TemplateFormatErr"

COLORS: Final = (
    "[\u001b\u009b][\\[\\]()#;?]*"
    "(?:(?:(?:[a-zA-Z0-9]*(?:;[a-zA-Z0-9]*)*)?\u0007)|(?:(?:[0-9]{1,4}(?:;[0-9]{0,4})*)?[0-9A-PRZcf-nqrty<=>~]))"
)
"""What a terminal takes for colours and other commands, as Loki knows it."""


def _compiled(text: str, kind: str, at: int, now_ns: Callable[[], int]) -> Template:
    try:
        return Template(text, kind, now_ns)
    except TemplateError as error:
        raise InvalidQuery(f"invalid {kind} template: {error}", at) from None


class _Rendered:
    """What a template makes of each row of a layer: a code for each row, the texts and the failures of the codes."""

    def __init__(self, layer: Layer, template: Template, row_of: Callable[[int], Row]) -> None:
        """Take the layer whose labels it sees; `row_of` is for templates that can look at any label."""
        lines = layer.lines if template.uses_line else None
        times = layer.times() if template.uses_time else None
        single = lines is not None or times is not None or template.labels is None
        entries = {} if template.labels is None else {name: layer.entry(name) for name in sorted(template.labels)}
        if single:
            firsts = self.codes = np.arange(layer.count)
        else:
            firsts, self.codes = _distinct(layer.count, [entry.codes for entry in entries.values()])
        self.texts: list[str] = []
        self.failures: list[str] = []
        for number, place in enumerate(firsts.tolist()):
            if number % ROWS_BETWEEN_CHECKS == 0:
                layer.check()
            if template.labels is None:
                labels = row_of(place).labels()
            else:
                labels = {
                    name: entry.values[code] for name, entry in entries.items() if (code := int(entry.codes[place]))
                }
            line = "" if lines is None else lines.line(place).decode("utf-8", "replace")
            try:
                self.texts.append(template.render(labels, line, 0 if times is None else int(times[place])))
                self.failures.append("")
                layer.charge(len(self.texts[-1]))
            except TemplateFailure as failure:
                self.texts.append("")
                self.failures.append(str(failure))

    def faults(self, name: str) -> Entry:
        """Return `__error__` or `__error_details__`."""
        builder = Builder(0)
        codes = np.array(
            [builder.code((TEMPLATE_ERROR if name == ERROR else text) if text else "") for text in self.failures],
            np.intp,
        )
        return parsed(codes[self.codes] if codes.size else self.codes, builder.values)

    def entry(self) -> Entry:
        """Return the label that the texts make, where it did not fail."""
        builder = Builder(0, keeps_empty=True)
        codes = [0 if failure else builder.code(text) for text, failure in zip(self.texts, self.failures, strict=True)]
        return parsed(np.array(codes, np.intp)[self.codes] if codes else self.codes, builder.values)

    def narrowed(self, mask: NDArray[np.bool_]) -> _Rendered:
        """Return the same for some rows."""
        other = _Rendered.__new__(_Rendered)
        other.codes, other.texts, other.failures = self.codes[mask], self.texts, self.failures
        return other


def _distinct(count: int, columns: Sequence[NDArray[np.intp]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first row of each distinct combination of codes, and each row's combination."""
    codes = np.zeros(count, np.intp)
    firsts = np.zeros(min(count, 1), np.intp)
    for column in columns:
        size = int(column.max()) + 1 if count else 1
        if size > 1:
            _, firsts, codes = np.unique(codes * size + column, return_index=True, return_inverse=True)
    return firsts, codes


class _TemplateLayer(StageLayer):
    """Rows after a template: its label or its lines are worked out when they, or its faults, are asked for."""

    def __init__(self, below: Layer, sees: int, template: Template, steps: Sequence[Callable[[Row], bool]]) -> None:
        """Take how many layers down the one is that the template sees, and the stages before its own, line by line."""
        super().__init__(below)
        self._sees = sees
        self._template = template
        self._steps = steps
        self._known: _Rendered | None = None

    def narrowed(self, mask: NDArray[np.bool_]) -> Any:
        """See `Layer.narrowed`."""
        layer = super().narrowed(mask)
        if self._known is not None:
            layer._known = self._known.narrowed(mask)
        return layer

    def _rendered(self) -> _Rendered:
        if self._known is None:
            layer: Layer = self
            for _ in range(self._sees):
                assert isinstance(layer, StageLayer)  # what is seen is in the pile
                layer = layer.below
            self._known = _Rendered(layer, self._template, self._row)
        return self._known

    def _row(self, place: int) -> Row:
        row = self.row(place)
        for step in self._steps:
            step(row)
        return row

    def _entry(self, name: str) -> Entry:
        below = self.below.entry(name)
        return below.under(self._rendered().faults(name)) if name in ERRORS else below


class _LineLayer(_TemplateLayer):
    """`line_format`."""

    def _lines(self) -> Lines:
        rendered, before = self._rendered(), self.below.lines
        texts = [text.encode() for text in rendered.texts]
        repeated = sum(len(texts[code]) for code in rendered.codes.tolist()) - sum(map(len, texts))
        self.charge(max(0, repeated))  # the rest was counted when it was made
        return lines_of(
            [
                before.line(row) if rendered.failures[code] else texts[code]
                for row, code in enumerate(rendered.codes.tolist())
            ]
        )


class _LabelLayer(_TemplateLayer):
    """One template of `label_format`."""

    def __init__(
        self, below: Layer, sees: int, template: Template, steps: Sequence[Callable[[Row], bool]], label: str
    ) -> None:
        super().__init__(below, sees, template, steps)
        self._label = label

    def _extracted(self, name: str) -> NDArray[np.bool_]:
        before = self.below.extracted(name)
        return before | (self._rendered().entry().codes != 0) if name == self._label else before

    def _entry(self, name: str) -> Entry:
        if name == self._label:
            return self.below.entry(name).under(self._rendered().entry())
        return super()._entry(name)


class _RenameLayer(StageLayer):
    """One renaming of `label_format`."""

    def __init__(self, below: Layer, label: str, source: str) -> None:
        super().__init__(below)
        self._label = label
        self._source = source

    def _extracted(self, name: str) -> NDArray[np.bool_]:
        before = self.below.extracted(name)
        return before | (self._moved().codes != 0) if name == self._label else before

    def _moved(self) -> Entry:
        if self._source in ERRORS:
            return nowhere(self.count)
        source = self.below.entry(self._source)
        return parsed(source.codes, source.values)

    def _entry(self, name: str) -> Entry:
        below = self.below.entry(name)
        if name == self._source and name not in ERRORS:
            return nowhere(self.count)
        return below.under(self._moved()) if name == self._label else below


class LineFormat:
    """`| line_format "template"`."""

    def __init__(self, stage: ast.LineFormat, now_ns: Callable[[], int]) -> None:
        """Read the template. Raises InvalidQuery."""
        self._template = _compiled(stage.template, "line", stage.at, now_ns)
        self._before: Sequence[Callable[[Row], bool]] = ()

    def follows(self, steps: Sequence[Callable[[Row], bool]]) -> None:
        """Learn which stages come before, line by line."""
        self._before = steps

    def apply(self, batch: Batch) -> Batch:
        """See `Step.apply`."""
        return batch.under(_LineLayer(batch.layer, 1, self._template, self._before))

    def line(self, row: Row) -> bool:
        """See `Step.line`."""
        try:
            row.line = self._template.render(row.labels(), row.line.decode("utf-8", "replace"), row.time).encode()
        except TemplateFailure as failure:
            row.fail(TEMPLATE_ERROR, str(failure))
        return True


class LabelFormat:
    """`| label_format a=b, c="template"`."""

    def __init__(self, stage: ast.LabelFormat, now_ns: Callable[[], int]) -> None:
        """Read the templates. Raises InvalidQuery."""
        self._assignments: list[tuple[str, str | Template]] = []
        for each in stage.assignments:
            if each.label in ERRORS:
                raise InvalidQuery(f"{each.label} cannot be formatted", stage.at)
            source = _compiled(each.source, "label", stage.at, now_ns) if each.template else each.source
            self._assignments.append((each.label, source))
        self._before: Sequence[Callable[[Row], bool]] = ()

    def follows(self, steps: Sequence[Callable[[Row], bool]]) -> None:
        """Learn which stages come before, line by line."""
        self._before = steps

    def apply(self, batch: Batch) -> Batch:
        """See `Step.apply`."""
        layer, sees = batch.layer, 0
        before = list(self._before)
        for label, source in self._assignments:
            if isinstance(source, Template):
                sees += 1
                layer = _LabelLayer(layer, sees, source, before, label)
            elif not sees:
                layer = _RenameLayer(layer, label, source)
                before.append(_renaming(label, source))
            else:
                sees += 1
                layer = _RenameLayer(layer, label, source)
        return batch.under(layer)

    def line(self, row: Row) -> bool:
        """See `Step.line`."""
        labels: dict[str, str] | None = None
        for label, source in self._assignments:
            if not isinstance(source, Template):
                _rename(row, label, source)
                continue
            labels = row.labels() if labels is None else labels
            try:
                row.set(label, source.render(labels, row.line.decode("utf-8", "replace"), row.time))
            except TemplateFailure as failure:
                row.fail(TEMPLATE_ERROR, str(failure))
        return True


def _rename(row: Row, label: str, source: str) -> bool:
    text = None if source in ERRORS else row.get(source)
    if text is not None:
        row.set(label, text)
        row.delete(source)
    return True


def _renaming(label: str, source: str) -> Callable[[Row], bool]:
    return lambda row: _rename(row, label, source)


class _PlainLayer(StageLayer):
    """`decolorize`."""

    def __init__(self, below: Layer, plain: Callable[[bytes], bytes]) -> None:
        super().__init__(below)
        self._plain = plain

    def _lines(self) -> Lines:
        before = self.below.lines
        coloured = before.contain(b"\x1b") | before.contain("\u009b".encode())
        if not coloured.any():
            return before
        texts = before.all()
        for number, place in enumerate(np.flatnonzero(coloured).tolist()):
            if number % ROWS_BETWEEN_CHECKS == 0:
                self.check()
            texts[place] = self._plain(texts[place])
        self.charge(sum(map(len, texts)))
        return lines_of(texts)


class Decolorize:
    """`| decolorize`."""

    def __init__(self) -> None:
        self._colors = compile_regex(COLORS)

    def apply(self, batch: Batch) -> Batch:
        """See `Step.apply`."""
        return batch.under(_PlainLayer(batch.layer, self._plain))

    def line(self, row: Row) -> bool:
        """See `Step.line`."""
        row.line = self._plain(row.line)
        return True

    def _plain(self, line: bytes) -> bytes:
        plain: bytes = self._colors.sub(b"", line)
        return plain
