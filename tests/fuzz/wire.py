"""Mutations of protobuf messages that keep lengths right, so that a change deep inside still reaches the scanner.

A message is taken apart as far as its bytes allow, one field at a time; one place in it is changed, and every length
above is written anew. Bytes that are no message are left to the byte-wise mutations of the fuzzer.
"""

from __future__ import annotations

from random import Random

DEPTH_MAX = 24
"""Levels that a mutation descends."""
NUMBERS = (0, 1, 2, 127, 128, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)

Field = tuple[int, bytes]
"""A field's tag, and all that follows it but a length."""


def varint(value: int) -> bytes:
    """Write a varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    value = 0
    for count, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return value & 2**64 - 1, at + count + 1
    return None


def fields_of(data: bytes) -> list[Field] | None:
    """Return the fields of a message, None if the bytes are none."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        read = _varint(data, at)
        if read is None or not 8 <= read[0] < 2**32:
            return None
        tag, at = read
        match tag & 7:
            case 0:
                read = _varint(data, at)
                if read is None:
                    return None
                fields.append((tag, data[at : read[1]]))
                at = read[1]
            case 1 | 5 as kind:
                size = 8 if kind == 1 else 4
                fields.append((tag, data[at : at + size]))
                at += size
            case 2:
                read = _varint(data, at)
                if read is None:
                    return None
                length, at = read
                fields.append((tag, data[at : at + length]))
                at += length
            case 3 | 4:
                fields.append((tag, b""))
            case _:
                return None
    return fields if at == len(data) else None


def join(fields: list[Field]) -> bytes:
    """Write fields as a message."""
    return b"".join(varint(tag) + (varint(len(content)) if tag & 7 == 2 else b"") + content for tag, content in fields)


def mutate(data: bytes, chance: Random, depth: int = 0) -> bytes:
    """Change one place of a message."""
    fields = fields_of(data)
    if not fields:
        return _bytes(data, chance)
    number = chance.randrange(len(fields))
    tag, content = fields[number]
    if tag & 7 == 2 and content and depth < DEPTH_MAX and chance.random() < 0.75:
        fields[number] = (tag, mutate(content, chance, depth + 1))
        return join(fields)
    match chance.randrange(9):
        case 0:
            del fields[number]
        case 1:
            fields.insert(chance.randrange(len(fields) + 1), fields[number])
        case 2:
            other = chance.randrange(len(fields))
            fields[number], fields[other] = fields[other], fields[number]
        case 3:
            fields[number] = (chance.randrange(1, 24) << 3 | chance.choice((0, 1, 2, 2, 3, 4, 5)), content)
        case 4:
            fields[number] = (tag, _value(tag & 7, content, chance))
        case 5:
            fields[number] = (tag, join([(tag, content)]))
        case 6:
            fields.insert(number, (chance.randrange(1, 24) << 3, varint(chance.choice(NUMBERS))))
        case 7:
            fields[number] = (chance.randrange(1, 24) << 3 | 2, join(fields))
        case _:
            fields[number] = (tag, content * chance.randint(2, 5) if tag & 7 == 2 else content)
    return join(fields)


def _value(kind: int, content: bytes, chance: Random) -> bytes:
    if kind == 0:
        return varint(chance.choice((*NUMBERS, chance.getrandbits(64))))
    if kind in (1, 5):
        return chance.choice((bytes(8), b"\xff" * 8, chance.randbytes(8)))[: 8 if kind == 1 else 4]
    if kind == 2:
        return chance.choice(
            (b"", bytes(16), b"\xff\xfe", "é\0‮".encode(), chance.randbytes(8), _bytes(content, chance))
        )
    return content


def _bytes(data: bytes, chance: Random) -> bytes:
    made = bytearray(data or b"\0")
    at = chance.randrange(len(made))
    match chance.randrange(3):
        case 0:
            made[at] ^= 1 << chance.randrange(8)
        case 1:
            made[at:at] = chance.randbytes(chance.randint(1, 8))
        case _:
            del made[at : at + chance.randint(1, 8)]
    return bytes(made)
