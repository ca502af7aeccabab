# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""How lines of JSON are walked over, compiled: tokens, values, escapes, keys in label form, member after member.

JSON is taken as leniently as Loki's parser takes it: what a line holds before the place where it goes wrong is found;
numbers are whatever begins like one; arrays and nulls are passed over; what follows the object is not looked at. An
object inside another must have its end. Objects may nest `NESTING` deep, which bounds the time, too: looking for
ends is at most that many walks over a line.

Nothing here allocates or raises. Faults are numbers; `members.py` names them.
"""

import cython
from cython.cimports.collector.query.logql.walk import NESTING, Bytes, Value, Walk
from cython.cimports.libc.stdint import uint8_t
from cython.cimports.libc.string import memcmp


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def token(at: Bytes, end: Bytes) -> Bytes:
    """Return where white space ends; `end` when nothing follows."""
    while at < end and (at[0] == 32 or at[0] == 10 or at[0] == 13 or at[0] == 9):
        at += 1
    return at


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def string(at: Bytes, end: Bytes, escaped: cython.pointer(cython.bint)) -> Bytes:
    """Return where the string ends of which `at` is the first byte: at its closing quote, or NULL."""
    escaped[0] = False
    while at < end:
        if at[0] == 34:
            return at
        if at[0] == 92:
            escaped[0] = True
            at += 1
        at += 1
    return cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def block(at: Bytes, end: Bytes, opening: uint8_t, closing: uint8_t) -> Bytes:
    """Return where the array or object ends that begins at `at`: behind its closing bracket, or NULL."""
    level: cython.Py_ssize_t = 0
    escaped: cython.bint = False
    while at < end:
        if at[0] == 34:
            at = string(at + 1, end, cython.address(escaped))
            if at == cython.NULL:
                return cython.NULL
        elif at[0] == opening:
            level += 1
        elif at[0] == closing:
            level -= 1
            if level == 0:
                return at + 1
        at += 1
    return cython.NULL


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_value(at: Bytes, end: Bytes, value: cython.pointer(Value)) -> cython.int:
    """Read the value that follows; return its fault."""
    first: uint8_t
    escaped: cython.bint = False
    at = token(at, end)
    if at == end:
        return 2
    first = at[0]
    value.at = at
    if first == 34:
        value.at = at + 1
        at = string(at + 1, end, cython.address(escaped))
        if at == cython.NULL:
            return 4
        value.kind = 2 if escaped else 1
        value.length = at - value.at
        value.end = at + 1
        return 0
    if first == 123 or first == 91:
        at = block(at, end, first, first + 2)
        if at == cython.NULL:
            return 1 if first == 123 else 3
        value.kind = 4 if first == 123 else 5
    else:
        while at < end and not (
            at[0] == 44 or at[0] == 125 or at[0] == 93 or at[0] == 32 or at[0] == 10 or at[0] == 13 or at[0] == 9
        ):
            at += 1
        if first == 45 or 48 <= first <= 57:
            value.kind = 3
        elif at - value.at == 4 and memcmp(value.at, cython.cast(cython.p_char, b"true"), 4) == 0:
            value.kind = 3
        elif at - value.at == 5 and memcmp(value.at, cython.cast(cython.p_char, b"false"), 5) == 0:
            value.kind = 3
        elif at - value.at == 4 and memcmp(value.at, cython.cast(cython.p_char, b"null"), 4) == 0:
            value.kind = 6
        else:
            return 6
    value.length = at - value.at
    value.end = at
    return 0


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _hex(byte: uint8_t) -> cython.int:
    if 48 <= byte <= 57:
        return byte - 48
    if 65 <= byte <= 70:
        return byte - 55
    if 97 <= byte <= 102:
        return byte - 87
    return -1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def hex4(at: Bytes, end: Bytes) -> cython.int:
    r"""Return the number of the `\uXXXX` at `at`, or -1."""
    i: cython.int
    digit: cython.int
    number: cython.int = 0
    if end - at < 6 or at[0] != 92 or at[1] != 117:
        return -1
    for i in range(2, 6):
        digit = _hex(at[i])
        if digit < 0:
            return -1
        number = number * 16 + digit
    return number


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unescape(at: Bytes, length: cython.Py_ssize_t, out: cython.pointer(uint8_t)) -> cython.Py_ssize_t:
    """Write a JSON string without its escapes, never longer than with them; return its length, or -1."""
    end: Bytes = at + length
    begin: cython.pointer(uint8_t) = out
    byte: uint8_t
    code: cython.int
    low: cython.int
    while at < end:
        byte = at[0]
        if byte != 92:
            out[0] = byte
            out += 1
            at += 1
            continue
        if end - at < 2:
            return -1
        byte = at[1]
        if byte == 117:
            code = hex4(at, end)
            if code < 0:
                return -1
            at += 6
            if 0xD800 <= code <= 0xDFFF:
                if end - at < 6:
                    return -1
                low = (
                    (_hex(at[2]) << 12) | (_hex(at[3]) << 8) | (_hex(at[4]) << 4) | _hex(at[5])
                )  # negative if any is no digit
                if low < 0xDC00:
                    return -1
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                at += 6
                if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                    code = 0xFFFD
            if code < 0x80:
                out[0] = code
                out += 1
            elif code < 0x800:
                out[0] = 0xC0 | code >> 6
                out[1] = 0x80 | code & 63
                out += 2
            elif code < 0x10000:
                out[0] = 0xE0 | code >> 12
                out[1] = 0x80 | code >> 6 & 63
                out[2] = 0x80 | code & 63
                out += 3
            else:
                out[0] = 0xF0 | code >> 18
                out[1] = 0x80 | code >> 12 & 63
                out[2] = 0x80 | code >> 6 & 63
                out[3] = 0x80 | code & 63
                out += 4
            continue
        if byte == 98:
            byte = 8
        elif byte == 102:
            byte = 12
        elif byte == 110:
            byte = 10
        elif byte == 114:
            byte = 13
        elif byte == 116:
            byte = 9
        elif byte != 34 and byte != 92 and byte != 47:
            return -1
        out[0] = byte
        out += 1
        at += 2
    return out - begin


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _space(at: Bytes, end: Bytes) -> cython.int:
    """Return how many bytes the white space character at `at` has; 0 if it is none."""
    byte: uint8_t = at[0]
    if byte == 32 or 9 <= byte <= 13:
        return 1
    if byte < 0xC2 or end - at < 2:
        return 0
    if byte == 0xC2:
        return 2 if at[1] == 0x85 or at[1] == 0xA0 else 0
    if end - at < 3:
        return 0
    if byte == 0xE1:
        return 3 if at[1] == 0x9A and at[2] == 0x80 else 0
    if byte == 0xE2 and at[1] == 0x80:
        return 3 if at[2] <= 0x8A or at[2] == 0xA8 or at[2] == 0xA9 or at[2] == 0xAF else 0
    if byte == 0xE2:
        return 3 if at[1] == 0x81 and at[2] == 0x9F else 0
    return 3 if byte == 0xE3 and at[1] == 0x80 and at[2] == 0x80 else 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def append_key(
    name: cython.pointer(uint8_t), length: cython.Py_ssize_t, key: Bytes, key_length: cython.Py_ssize_t
) -> cython.Py_ssize_t:
    """Put a key, in label form, behind a name; return how long the name is then. A blank key changes nothing."""
    end: Bytes = key + key_length
    byte: uint8_t
    size: cython.int
    while key < end:
        size = _space(key, end)
        if size == 0:
            break
        key += size
    while end > key:
        if _space(end - 1, end) == 1:
            end -= 1
        elif end - key >= 2 and _space(end - 2, end) == 2:
            end -= 2
        elif end - key >= 3 and _space(end - 3, end) == 3:
            end -= 3
        else:
            break
    if key == end:
        return length
    if length:
        name[length] = 95
        length += 1
    elif 48 <= key[0] <= 57:
        name[0] = 95
        length = 1
    while key < end:
        byte = key[0]
        key += 1
        if 97 <= byte <= 122 or 65 <= byte <= 90 or 48 <= byte <= 57:
            name[length] = byte
            length += 1
        elif byte < 128 or byte >= 192:  # one `_` for a character of several bytes
            name[length] = 95
            length += 1
    return length


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def begin(walk: cython.pointer(Walk), at: Bytes, end: Bytes) -> cython.bint:
    """Go to the first key of the object that a line is."""
    walk.status = 0
    walk.depth = 0
    walk.after = False
    walk.names[0] = 0
    walk.ends[0] = end
    at = token(at, end)
    if at == end or at[0] != 123:
        walk.status = 1
        return False
    at = token(at + 1, end)
    if at == end:
        walk.status = 2
        return False
    walk.at = at
    return True


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def next_member(walk: cython.pointer(Walk), value: cython.pointer(Value)) -> cython.bint:
    """Go to the next member that is a text, a number or a truth value; False at the end or at a fault."""
    at: Bytes = walk.at
    end: Bytes
    key: Bytes
    key_end: Bytes
    key_length: cython.Py_ssize_t
    escaped: cython.bint = False
    while True:
        end = walk.ends[walk.depth]
        if walk.after:
            at = token(at, end)
            if at == end:
                walk.status = 3
                return False
            if at[0] == 44:
                at = token(at + 1, end)
                if at == end:
                    walk.status = 3
                    return False
                walk.after = False
            elif at[0] != 125:
                walk.status = 1
                return False
        if at[0] == 125:
            if walk.depth == 0:
                return False
            walk.depth -= 1
            walk.after = True
            at = end
            continue
        if at[0] != 34:
            walk.status = 1
            return False
        key = at + 1
        key_end = string(key, end, cython.address(escaped))
        if key_end == cython.NULL:
            walk.status = 2
            return False
        key_length = key_end - key
        if escaped:
            key_length = unescape(key, key_length, walk.key)
            key = walk.key
            if key_length < 0:
                walk.status = 5
                return False
        at = token(key_end + 1, end)
        if at == end or at[0] != 58:
            walk.status = 2
            return False
        walk.status = read_value(at + 1, end, value)
        if walk.status:
            return False
        walk.length = append_key(walk.name, walk.names[walk.depth], key, key_length)
        walk.after = True
        at = value.end
        if value.kind == 4:
            if walk.depth == NESTING - 1:
                walk.status = 7
                return False
            walk.depth += 1
            walk.ends[walk.depth] = value.end
            walk.names[walk.depth] = walk.length
            walk.after = False
            at = token(value.at + 1, value.end)
        elif value.kind <= 3 and walk.length > 0:
            walk.at = at
            return True
