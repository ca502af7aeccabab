# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The texts of log records and of spans: what keyword indexes are made of (words.py), and what queries look for.

Texts of a record, each of a kind:

* BODY: what stands in its line. A body that is a string; of one that is an array or a key-value list, which a line shows
  as JSON, all strings and all keys. Of a span, none.
* ATTRIBUTE: what can be the value of one of its labels, or of a span's fields. Strings among the attributes, nested ones
  too (not their keys), its severity text and event name; a span's name, its status' message, and the strings among the
  attributes of its events and links, with the names of events. Those of its resource and its scope, with the scope's name
  and version, are the same for many records; they come apart, a group at a time.

What a line or a label shows and no text tells is told by flags: BODY_NUMBER, the body has numbers, truth values or nulls;
BODY_OPAQUE, it has bytes, or strings that JSON must escape; ATTRIBUTE_OPAQUE, an attribute has bytes. Numbers among the
attributes have no flag: nearly every record has some. BODY_LONG and ATTRIBUTE_LONG are of words.

Cost: about 0.1 µs to find the texts of a record.
"""

from collections import namedtuple

import cython
import numpy as np
from cython.cimports.collector.otlp.texts import *  # noqa: F403
from cython.cimports.collector.otlp.wire import DEPTH, Extent, next_field
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import free, realloc

from collector.otlp.signals import TRACES

globals().update(
    BODY=BODY,
    ATTRIBUTE=ATTRIBUTE,
    BODY_NUMBER=BODY_NUMBER,
    BODY_OPAQUE=BODY_OPAQUE,
    ATTRIBUTE_OPAQUE=ATTRIBUTE_OPAQUE,
    BODY_LONG=BODY_LONG,
    ATTRIBUTE_LONG=ATTRIBUTE_LONG,
)

TextExtents = namedtuple("TextExtents", ("row", "kind", "start", "length", "flags"))  # noqa: PYI024 (typed in texts.pyi)
TextExtents.__doc__ = """Texts of a block, in the order of its rows.

`row` u32: the record, or the group, that a text is of; `kind` u8; `start`, `length` u32: bytes of the payload.
`flags` u8: an entry for each record or group of the block, without those of words.
"""


record_texts_of, resource_texts_of, scope_texts_of, span_texts_of = range(4)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _add(texts: cython.pointer(Texts), content: cython.pointer(Extent), kind: cython.int) -> cython.bint:
    """Take a text; false when there is no memory."""
    grown: cython.p_void
    room: cython.Py_ssize_t
    if content.length == 0:
        return True
    if texts.count == texts.room:
        room = texts.room * 2 if texts.room else 64
        grown = realloc(texts.text, room * cython.sizeof(Text))
        if grown == cython.NULL:
            return False
        texts.text = cython.cast(cython.pointer(Text), grown)
        texts.room = room
    texts.text[texts.count].at = content.at
    texts.text[texts.count].length = content.length
    texts.text[texts.count].kind = kind
    texts.count += 1
    return True


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _next(
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    tag: cython.pointer(uint32_t),
    content: cython.pointer(Extent),
) -> cython.pointer(cython.const[uint8_t]):
    """As `next_field`, of which no number is wanted: what is short without a call."""
    number: uint64_t = 0
    if end - at >= 2 and at[0] < 0x80 and at[0] & 7 == 2 and at[1] < 0x80 and end - at - 2 >= at[1]:
        tag[0] = at[0]
        content.at = at + 2
        content.length = at[1]
        return at + 2 + at[1]
    return next_field(at, end, tag, cython.address(number), content)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _must_be_escaped(content: cython.pointer(Extent)) -> cython.bint:
    """Tell whether JSON shows a string otherwise than as it is."""
    i: uint32_t
    for i in range(content.length):
        if content.at[i] < 0x20 or content.at[i] == 34 or content.at[i] == 92:
            return True
    return False


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _value_texts(
    texts: cython.pointer(Texts), value: cython.pointer(Extent), kind: cython.int, depth: cython.int
) -> cython.bint:
    """Take the texts of an AnyValue. `depth` counts values around it."""
    tag: uint32_t = 0
    content: Extent
    at: cython.pointer(cython.const[uint8_t]) = value.at
    end: cython.pointer(cython.const[uint8_t]) = value.at + value.length
    if depth >= DEPTH:
        texts.flags |= ATTRIBUTE_OPAQUE if kind == ATTRIBUTE else BODY_OPAQUE
        return True
    if kind == BODY and depth and at == end:
        texts.flags |= BODY_NUMBER  # null
    while at < end:
        at = _next(at, end, cython.address(tag), cython.address(content))
        if tag == 10:  # string_value
            if kind == BODY and depth and _must_be_escaped(cython.address(content)):
                texts.flags |= BODY_OPAQUE
            if not _add(texts, cython.address(content), kind):
                return False
        elif tag == 42:  # array_value
            if not _list_texts(texts, cython.address(content), kind, depth + 1, False):
                return False
        elif tag == 50:  # kvlist_value
            if not _list_texts(texts, cython.address(content), kind, depth + 1, True):
                return False
        elif tag == 58:  # bytes_value
            texts.flags |= ATTRIBUTE_OPAQUE if kind == ATTRIBUTE else BODY_OPAQUE
        elif kind == BODY:
            texts.flags |= BODY_NUMBER
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _list_texts(
    texts: cython.pointer(Texts),
    content: cython.pointer(Extent),
    kind: cython.int,
    depth: cython.int,
    pairs: cython.bint,
) -> cython.bint:
    """Take the texts of an ArrayValue or a KeyValueList: both have their members in field 1."""
    tag: uint32_t = 0
    member: Extent
    at: cython.pointer(cython.const[uint8_t]) = content.at
    end: cython.pointer(cython.const[uint8_t]) = content.at + content.length
    while at < end:
        at = _next(at, end, cython.address(tag), cython.address(member))
        if tag != 10 or member.at == cython.NULL:
            continue
        if pairs:
            if not _pair_texts(texts, cython.address(member), kind, depth):
                return False
        elif not _value_texts(texts, cython.address(member), kind, depth):
            return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _pair_texts(
    texts: cython.pointer(Texts), pair: cython.pointer(Extent), kind: cython.int, depth: cython.int
) -> cython.bint:
    """Take the texts of a KeyValue; of a body's its key, too."""
    tag: uint32_t = 0
    part: Extent
    at: cython.pointer(cython.const[uint8_t]) = pair.at
    end: cython.pointer(cython.const[uint8_t]) = pair.at + pair.length
    valued: cython.bint = False
    while at < end:
        at = _next(at, end, cython.address(tag), cython.address(part))
        if tag == 18:  # value
            valued = part.length > 0
            if not _value_texts(texts, cython.address(part), kind, depth):
                return False
        elif tag == 10 and kind == BODY:  # key
            if _must_be_escaped(cython.address(part)):
                texts.flags |= BODY_OPAQUE
            if not _add(texts, cython.address(part), kind):
                return False
    if kind == BODY and not valued:
        texts.flags |= BODY_NUMBER  # null
    return True


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _message_texts(
    texts: cython.pointer(Texts),
    at: cython.pointer(cython.const[uint8_t]),
    length: cython.Py_ssize_t,
    attributes: uint32_t,
    one: uint32_t,
    other: uint32_t,
    of: cython.int,
) -> cython.bint:
    """Take the texts of a message that has attributes, and one string or another, with these tags; and what only a
    LogRecord has, or a Span. What it is `of` is known where it is called, and costs nothing here."""
    tag: uint32_t = 0
    content: Extent
    end: cython.pointer(cython.const[uint8_t]) = at + length
    while at < end:
        if at[0] & 7 == 1 and at[0] < 0x80 and end - at >= 9:  # times
            at += 9
            continue
        at = _next(at, end, cython.address(tag), cython.address(content))
        if tag == attributes:
            if not _pair_texts(texts, cython.address(content), ATTRIBUTE, 0):
                return False
        elif tag == one or tag == other:
            if not _add(texts, cython.address(content), ATTRIBUTE):
                return False
        elif of == _LOG_RECORD:
            if tag == 42 and not _value_texts(texts, cython.address(content), BODY, 0):  # body
                return False
        elif of == _SPAN:
            if tag == 90:  # events: attributes, name
                if not _part_texts(texts, cython.address(content), 26, 18):
                    return False
            elif tag == 106:  # links: attributes
                if not _part_texts(texts, cython.address(content), 34, 0):
                    return False
            elif tag == 122 and not _part_texts(texts, cython.address(content), 0, 18):  # status: message
                return False
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _part_texts(
    texts: cython.pointer(Texts), part: cython.pointer(Extent), attributes: uint32_t, name: uint32_t
) -> cython.bint:
    """Take the texts of an event, a link or a status."""
    return _message_texts(texts, part.at, part.length, attributes, name, 0, _OTHER)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def record_texts(
    texts: cython.pointer(Texts), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t
) -> cython.bint:
    """Take the texts of a LogRecord that has been validated; false when there is no memory."""
    return _message_texts(texts, at, length, 50, 26, 98, _LOG_RECORD)  # attributes, severity_text, event_name


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def span_texts(
    texts: cython.pointer(Texts), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t
) -> cython.bint:
    """Take the texts of a Span that has been validated; false when there is no memory."""
    return _message_texts(texts, at, length, 74, 42, 0, _SPAN)  # attributes, name


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def resource_texts(
    texts: cython.pointer(Texts), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t
) -> cython.bint:
    """Take the texts of a Resource; false when there is no memory."""
    return _message_texts(texts, at, length, 10, 0, 0, _OTHER)  # attributes


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def scope_texts(
    texts: cython.pointer(Texts), at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t
) -> cython.bint:
    """Take the texts of an InstrumentationScope; false when there is no memory."""
    return _message_texts(texts, at, length, 26, 10, 18, _OTHER)  # attributes, name, version


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def release_texts(texts: cython.pointer(Texts)) -> cython.void:
    """Give back what was taken."""
    free(texts.text)
    texts.text = cython.NULL
    texts.count = 0
    texts.room = 0


def texts(block) -> TextExtents:
    """Return the texts of a block's records, which are log records or spans."""
    of = span_texts_of if block.signal is TRACES else record_texts_of
    return _extents(block, block.count, ((of, block.column("start"), block.column("length")),))


def container_texts(block) -> TextExtents:
    """Return the texts of the resources and scopes that a block's records stand in, by the rows of its groups."""
    column = block.group_column
    return _extents(
        block,
        block.groups.count,
        (
            (resource_texts_of, column("resource_start"), column("resource_length")),
            (scope_texts_of, column("scope_start"), column("scope_length")),
        ),
    )


@cython.cfunc
def _extents(block, n: cython.Py_ssize_t, parts: tuple):
    found: Texts
    payload: cython.const[uint8_t][::1] = block.payload
    base: cython.pointer(cython.const[uint8_t])
    start: cython.const[uint32_t][::1]
    length: cython.const[uint32_t][::1]
    i: cython.Py_ssize_t
    k: cython.Py_ssize_t
    what: cython.int
    fine: cython.bint = True
    out: list = []
    flags = np.zeros(n, np.uint8)
    found.text = cython.NULL
    found.room = 0
    try:
        for i in range(n if len(block.payload) else 0):
            base = cython.address(payload[0])
            found.count = 0
            found.flags = 0
            for what, start, length in parts:
                if cython.cast(uint64_t, start[i]) + length[i] > cython.cast(uint64_t, payload.shape[0]):
                    raise ValueError("an extent reaches outside the payload")
                if what == 0:
                    fine = record_texts(cython.address(found), base + start[i], length[i])
                elif what == 1:
                    fine = resource_texts(cython.address(found), base + start[i], length[i])
                elif what == 3:
                    fine = span_texts(cython.address(found), base + start[i], length[i])
                else:
                    fine = scope_texts(cython.address(found), base + start[i], length[i])
                if not fine:
                    raise MemoryError
            flags[i] = found.flags
            out += [(i, found.text[k].kind, found.text[k].at - base, found.text[k].length) for k in range(found.count)]
    finally:
        release_texts(cython.address(found))
    row, kind, begin, size = zip(*out, strict=True) if out else ((), (), (), ())
    return TextExtents(
        np.array(row, np.uint32),
        np.array(kind, np.uint8),
        np.array(begin, np.uint32),
        np.array(size, np.uint32),
        flags,
    )
