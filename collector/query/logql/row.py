"""One line on its way through a pipeline, label by label: what every stage means, in its plainest form.

A label is in one of three categories: the stream's, structured metadata, or parsed; a parsed label hides the
others of its name. A label can be there and empty (`json a="missing"`), which is not the same as absent: a
comparison with a number fails on the first and drops the line on the second. `__error__` and
`__error_details__` are apart from all of them, as in Loki.

Stages run over batches by columns (`columns.py`); lines that are answered, and series by all labels, run through the
same stages row by row. Tests hold the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ERROR = "__error__"
"""The label that says that a stage failed on the line; the line stays."""
DETAILS = "__error_details__"
"""The label that says why."""
ERRORS = (ERROR, DETAILS)

SUFFIX = "_extracted"
"""What a parsed label gets behind its name when the stream or the structured metadata has that name."""


@dataclass(slots=True, eq=False)
class Row:
    """A line and its labels. Stages change it."""

    time: int
    """Unix ns."""
    line: bytes
    base: dict[str, str]
    """The labels of the stream as it came; nothing changes these."""
    stream: dict[str, str]
    metadata: dict[str, str]
    parsed: dict[str, str] = field(default_factory=dict)
    extracted: set[str] = field(default_factory=set)
    """Every name that was ever parsed out of the line: later parsers leave it alone."""
    error: str = ""
    details: str = ""
    sample: float = 0.0
    """What `unwrap` made of the line."""

    def get(self, name: str) -> str | None:
        """Return a label's text, or None if it is absent."""
        if name == ERROR:
            return self.error or None
        if name == DETAILS:
            return self.details or None
        for labels in (self.parsed, self.metadata, self.stream):
            if name in labels:
                return labels[name]
        return None

    def set(self, name: str, text: str) -> None:
        """Set a parsed label, which then is the only one of its name."""
        self.stream.pop(name, None)
        self.metadata.pop(name, None)
        self.parsed[name] = text
        self.extracted.add(name)

    def delete(self, name: str) -> None:
        """Take a label away."""
        for labels in (self.stream, self.metadata, self.parsed):
            labels.pop(name, None)

    def takes(self, name: str) -> str:
        """Return the name under which a parser sets a label: with the suffix where the line has one like it."""
        return name + SUFFIX if name in self.base or name in self.metadata else name

    def has_extracted(self, name: str) -> bool:
        """Tell whether a label of that name was ever parsed out of the line."""
        return name in self.extracted

    def fail(self, error: str, details: str) -> None:
        """Note that a stage failed. Without details, earlier ones stay."""
        self.error = error
        if details:
            self.details = details

    def failures(self) -> dict[str, str]:
        """Return the error's labels, as far as there are any."""
        return {name: text for name, text in ((ERROR, self.error), (DETAILS, self.details)) if text}

    def labels(self) -> dict[str, str]:
        """Return all labels."""
        return self.stream | self.metadata | self.parsed | self.failures()
