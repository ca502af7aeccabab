# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""HPACK decoding (RFC 7541): header blocks of one connection to lists of fields, compiled.

A `Decoder` holds a connection's dynamic table, so it must be given every block, in order, also of requests that
nobody wants any more. Bounds: the table's size, which the client may only lower, and the size of a decoded list;
what passes the latter is decoded, for the table's sake, and left out.

A client that sends the same again sends the same block, which refers to the table and leaves it as it is: such a block
is remembered until another one comes.

Huffman codes are canonical: their lengths tell them, so the table below is the whole code.

Cost: 0.5 µs for the headers of a gRPC call that repeats. Not here: encoding. What a server says is so little that
it writes literals (`grpc.py`).
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t

ENTRY_OVERHEAD = cython.declare(cython.Py_ssize_t, 32)
KNOWN_BYTES_MAX = cython.declare(cython.Py_ssize_t, 512)  # of a block that is remembered
_INTEGER_MAX = cython.declare(uint64_t, 0xFFFFFFF)


class CompressionError(ValueError):
    """A header block that cannot be decoded; the connection's table is lost with it."""


# Lengths in bits of the codes of bytes 0 to 255 and of the end of string (appendix B).
_LENGTHS: tuple = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5,
    6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22,
    23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22,
    22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26,
    26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27,
    27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27,
    27, 27, 27, 27, 26, 30,
)  # fmt: skip

# The static table (appendix A): 61 names, most of them without a value.
_STATIC_TEXT: str = (
    ":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|"
    ":status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|"
    "accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|"
    "content-disposition|content-encoding|content-language|content-length|content-location|content-range|"
    "content-type|cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|"
    "if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|"
    "referer|refresh|retry-after|server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|"
    "www-authenticate"
)


def _static_table() -> list:
    fields = []
    for one in _STATIC_TEXT.encode().split(b"|"):
        name, _, value = one.partition(b" ")
        fields.append((name, value))
    return fields


_STATIC = cython.declare(list, _static_table())
STATIC_ENTRIES = cython.declare(cython.Py_ssize_t, 61)

# For each length: the first code, where its symbols begin in `_symbols`, and how many there are.
_first_code = cython.declare(uint32_t[32])
_first_symbol = cython.declare(uint32_t[32])
_code_count = cython.declare(uint32_t[32])
_symbols = cython.declare(uint32_t[257])


def _make_codes() -> None:
    length: cython.int
    symbol: cython.int
    place: uint32_t = 0
    code: uint32_t = 0
    for length in range(1, 31):
        code <<= 1
        _first_code[length] = code
        _first_symbol[length] = place
        for symbol in range(257):
            if _LENGTHS[symbol] == length:
                _symbols[place] = symbol
                place += 1
                code += 1
        _code_count[length] = place - _first_symbol[length]


_make_codes()


@cython.cfunc
def _unhuffman(at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t) -> bytes:
    """Decode a Huffman-coded string."""
    # The shortest code has 5 bits.
    out = bytearray(length * 8 // 5 + 1)
    room: cython.pointer(uint8_t) = cython.cast(cython.pointer(uint8_t), cython.cast(cython.p_char, out))
    filled: cython.Py_ssize_t = 0
    code: uint32_t = 0
    bits: cython.int = 0
    i: cython.Py_ssize_t
    bit: cython.int
    symbol: uint32_t
    ones: cython.bint = True
    for i in range(length):
        for bit in range(7, -1, -1):
            code = code << 1 | (at[i] >> bit & 1)
            bits += 1
            ones = ones and (code & 1) != 0
            if bits > 30:
                raise CompressionError("a string is not Huffman code")
            if code - _first_code[bits] < _code_count[bits] and code >= _first_code[bits]:
                symbol = _symbols[_first_symbol[bits] + code - _first_code[bits]]
                if symbol == 256:
                    raise CompressionError("a string holds the end-of-string code")
                room[filled] = symbol
                filled += 1
                code = 0
                bits = 0
                ones = True
    if bits > 7 or not ones:
        raise CompressionError("a string ends inside a Huffman code")
    return bytes(out[:filled])


@cython.cclass
class Decoder:
    """One connection's HPACK decoder.

    `table_bytes_max` bounds the dynamic table as RFC 7541, 4.1 counts it, `list_bytes_max` the decoded list as RFC
    9113, 10.5.1 counts it (32 bytes a field on top). `overflowed` tells that the newest list was cut for the latter.
    """

    overflowed = cython.declare(cython.bint, visibility="readonly")
    _entries: list
    _bytes: cython.Py_ssize_t
    _limit: cython.Py_ssize_t
    _table_bytes_max: cython.Py_ssize_t
    _list_bytes_max: cython.Py_ssize_t
    _known_block: bytes
    _known_fields: list
    _changed: cython.bint  # whether the table was, by the newest block
    _at: cython.pointer(cython.const[uint8_t])
    _end: cython.pointer(cython.const[uint8_t])

    def __init__(self, table_bytes_max: cython.Py_ssize_t, list_bytes_max: cython.Py_ssize_t) -> None:
        self._entries = []
        self._bytes = 0
        self._limit = table_bytes_max
        self._table_bytes_max = table_bytes_max
        self._list_bytes_max = list_bytes_max
        self.overflowed = False

    @property
    def table_bytes(self) -> int:
        """The dynamic table's size."""
        return self._bytes

    def decode(self, block: bytes) -> list:
        """Return the fields of a whole header block as (name, value); raise CompressionError when it has none.

        It is the list of the last call, and not to be changed, when the block must mean the same as then.
        """
        if self._known_fields is not None and block == self._known_block:
            self.overflowed = False
            return self._known_fields
        self._known_fields = None
        self._changed = False
        fields: list = []
        total: cython.Py_ssize_t = 0
        first: uint8_t
        name: bytes
        value: bytes
        field: tuple
        self._at = cython.cast(cython.pointer(cython.const[uint8_t]), cython.cast(cython.p_char, block))
        self._end = self._at + len(block)
        self.overflowed = False
        may_resize: cython.bint = True
        while self._at < self._end:
            first = self._at[0]
            if first & 0x80:
                field = self._entry(self._integer(7))
            elif first & 0xE0 == 0x20:
                if not may_resize:
                    raise CompressionError("the table's size changes inside a block")
                self._resize(self._integer(5))
                continue
            else:
                place = self._integer(6 if first & 0x40 else 4)
                name = self._string() if place == 0 else self._entry(place)[0]
                value = self._string()
                field = (name, value)
                if first & 0x40:
                    self._insert(field)
            may_resize = False
            total += len(cython.cast(bytes, field[0])) + len(cython.cast(bytes, field[1])) + ENTRY_OVERHEAD
            if total > self._list_bytes_max:
                self.overflowed = True
            else:
                fields.append(field)
        if not self._changed and not self.overflowed and len(block) <= KNOWN_BYTES_MAX:
            self._known_block = block
            self._known_fields = fields
        return fields

    @cython.cfunc
    @cython.exceptval(-1)
    def _integer(self, prefix: cython.int) -> cython.Py_ssize_t:
        """Read an integer whose first byte has `prefix` bits of it (5.1)."""
        mask: uint64_t = (1 << prefix) - 1
        value: uint64_t = self._at[0] & mask
        shift: cython.int = 0
        byte: uint8_t
        self._at += 1
        if value < mask:
            return value
        while True:
            if self._at >= self._end or shift > 28:
                raise CompressionError("an integer is cut short or too large")
            byte = self._at[0]
            self._at += 1
            value += cython.cast(uint64_t, byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if value > _INTEGER_MAX:
            raise CompressionError("an integer is too large")
        return value

    @cython.cfunc
    def _string(self) -> bytes:
        """Read a string (5.2)."""
        if self._at >= self._end:
            raise CompressionError("the block ends where a string should be")
        huffman: cython.bint = (self._at[0] & 0x80) != 0
        length: cython.Py_ssize_t = self._integer(7)
        if length > self._end - self._at:
            raise CompressionError("a string reaches beyond its block")
        start: cython.pointer(cython.const[uint8_t]) = self._at
        self._at += length
        if huffman:
            return _unhuffman(start, length)
        return cython.cast(cython.p_char, start)[:length]

    @cython.cfunc
    def _entry(self, place: cython.Py_ssize_t) -> tuple:
        """Return the field at an index of static and dynamic table (2.3.3)."""
        if 1 <= place <= STATIC_ENTRIES:
            return _STATIC[place - 1]
        place = len(self._entries) - (place - STATIC_ENTRIES)
        if place < 0 or place >= len(self._entries):
            raise CompressionError("an index points outside the table")
        return self._entries[place]

    @cython.cfunc
    @cython.exceptval(-1)
    def _insert(self, field: tuple) -> cython.int:
        """Put a field into the dynamic table; one that is larger than it empties it (4.4)."""
        # The newest entry stands last: indexes count from there.
        size: cython.Py_ssize_t = len(cython.cast(bytes, field[0])) + len(cython.cast(bytes, field[1])) + ENTRY_OVERHEAD
        self._changed = True
        self._evict(self._limit - size)
        if size <= self._limit:
            self._entries.append(field)
            self._bytes += size
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _resize(self, limit: cython.Py_ssize_t) -> cython.int:
        if limit > self._table_bytes_max:
            raise CompressionError("the table is made larger than was allowed")
        self._changed = True
        self._limit = limit
        self._evict(limit)
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _evict(self, limit: cython.Py_ssize_t) -> cython.int:
        """Drop the oldest entries until the table has at most `limit` bytes."""
        count: cython.Py_ssize_t = 0
        field: tuple
        while self._bytes > limit and count < len(self._entries):
            field = self._entries[count]
            self._bytes -= len(cython.cast(bytes, field[0])) + len(cython.cast(bytes, field[1])) + ENTRY_OVERHEAD
            count += 1
        if count:
            del self._entries[:count]
        return 0
