"""What a search needs of a record's texts, said in plain values: for indexes of words, which know no query language.

    Terms     all of these must hold
    Term      one of these must hold
    Sought    a text of a kind (`texts.py`) is the one sought, or has it inside; or the record has a trace's id

They may say less than a query asks and never more: a record that does not fulfil them is no answer, one that does is
looked at.

`pieces` tells what words a record then has. Between two characters that are no word's, a word of the text sought is a word
of the record. Where the text sought begins or ends with a word, the record's word may go on there. Of a record's words
not all are in an index: what it is told instead, as flags, `in_doubt` takes for each piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from collector.otlp.texts import ATTRIBUTE, ATTRIBUTE_LONG, ATTRIBUTE_OPAQUE, BODY_LONG, BODY_NUMBER, BODY_OPAQUE
from collector.otlp.words import WORD_BYTES_MAX, words

if TYPE_CHECKING:
    from collections.abc import Iterable

WHOLE, PREFIX, SUFFIX, WITHIN = range(4)
"""How a piece stands in a word of the record: it is the word, the word begins with it, ends with it, or has it inside."""

TRACE: Final = -1
"""The kind of a trace id: 16 bytes. Indexes of texts alone cannot tell of terms that have one; see `of_texts`."""

_NUMBER_BYTES: Final = frozenset(b"0123456789e")
_CONSTANTS: Final = (b"true", b"false", b"null", b"infinity", b"nan")


class Sought(NamedTuple):
    """A text that is sought."""

    kind: int
    """BODY, ATTRIBUTE or TRACE."""
    text: bytes
    """UTF-8, of which the case does not matter; or the id."""
    whole: bool
    """Whether the record's text is this one, or has it inside."""


Term = tuple[Sought, ...]
Terms = tuple[Term, ...]

ALTERNATIVES_MAX: Final = 64
"""Texts of one term; one with more says nothing."""
TERMS_MAX: Final = 64
"""Terms of one query; further ones say nothing."""


def either(alternatives: Iterable[list[Term]]) -> list[Term]:
    """Return what all alternatives ask for: everything of a single one, else of each the most telling term."""
    asked = list(alternatives)
    if len(asked) == 1:
        return [term for term in asked[0] if len(term) <= ALTERNATIVES_MAX]
    if not all(asked):
        return []
    term = tuple(dict.fromkeys(sought for one in asked for sought in max(one, key=_tells)))
    return [term] if len(term) <= ALTERNATIVES_MAX else []


def _tells(term: Term) -> int:
    """Return how much a term tells, about: the least of its texts' lengths."""
    return min(len(sought.text) for sought in term)


class Piece(NamedTuple):
    """A part of a word."""

    kind: int
    text: bytes
    """Folded, never empty."""
    how: int


def of_texts(terms: Terms) -> Terms:
    """Return the terms that texts alone decide."""
    return tuple(term for term in terms if all(sought.kind != TRACE for sought in term))


def pieces(sought: Sought) -> list[Piece]:
    """Return what words a record with the text has; nothing when that says nothing. Of an id, itself."""
    if sought.kind == TRACE:
        return [Piece(TRACE, sought.text, WHOLE)]
    found = []
    for start, end, folded in words(sought.text):
        begins = start > 0 or sought.whole
        ends = end < len(sought.text) or sought.whole
        how = WHOLE if begins and ends else PREFIX if begins else SUFFIX if ends else WITHIN
        found.append(Piece(sought.kind, folded, how))
    return found


def in_doubt(piece: Piece) -> int:
    """Return the flags of records that may have the piece although their words do not tell."""
    if piece.kind == TRACE:
        return 0
    is_long = piece.how != WHOLE or len(piece.text) > WORD_BYTES_MAX
    if piece.kind == ATTRIBUTE:
        return ATTRIBUTE_OPAQUE | (ATTRIBUTE_LONG if is_long else 0)
    may_be_number = _NUMBER_BYTES.issuperset(piece.text) or any(piece.text in constant for constant in _CONSTANTS)
    return BODY_OPAQUE | (BODY_LONG if is_long else 0) | (BODY_NUMBER if may_be_number else 0)
