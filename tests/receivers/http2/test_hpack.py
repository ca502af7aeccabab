"""HPACK decoding, with the hpack package as the oracle, and the RFC's examples."""

from __future__ import annotations

import hpack
import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from collector.receivers.http2.hpack import CompressionError, Decoder

TABLE, LIST = 4096, 1 << 20

names = st.one_of(
    st.sampled_from([b":path", b":method", b"content-type", b"grpc-timeout", b"x", b"user-agent"]),
    st.binary(min_size=1, max_size=20),
)
values = st.one_of(st.sampled_from([b"", b"POST", b"/", b"application/grpc", b"trailers"]), st.binary(max_size=60))
fields = st.lists(st.tuples(names, values, st.booleans()), max_size=12)


@given(st.lists(st.tuples(fields, st.booleans(), st.none() | st.integers(0, TABLE)), max_size=8))
def test_what_was_encoded_comes_back(blocks: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]]) -> None:
    encoder, decoder, oracle = hpack.Encoder(), Decoder(TABLE, LIST), hpack.Decoder(LIST)
    for block, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        tuples = [
            hpack.NeverIndexedHeaderTuple(name, value) if sensitive else hpack.HeaderTuple(name, value)
            for name, value, sensitive in block
        ]
        encoded = encoder.encode(tuples, huffman=huffman)
        assert decoder.decode(encoded) == [(name, value) for name, value, _ in block]
        oracle.decode(encoded, raw=True)
        assert decoder.table_bytes == oracle.header_table._current_size
        assert decoder.table_bytes <= TABLE


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_judged_as_the_oracle_judges_them(blocks: list[bytes]) -> None:
    decoder, oracle = Decoder(TABLE, LIST), hpack.Decoder(LIST)
    for block in blocks:
        try:
            expected = [tuple(field) for field in oracle.decode(block, raw=True)]
        except (hpack.HPACKError, IndexError):
            with pytest.raises(CompressionError):
                decoder.decode(block)
            return
        try:
            found = decoder.decode(block)
        except CompressionError as error:
            # The oracle has no limit on the integers that sizes and lengths are, and lets a size change stand anywhere.
            assert any(word in str(error) for word in ("too large", "inside a block", "larger than")), (block, error)
            return
        assert found == expected


def test_a_block_that_repeats_is_decoded_once_while_it_means_the_same() -> None:
    encoder, decoder = hpack.Encoder(), Decoder(TABLE, LIST)
    wanted = [(b":method", b"POST"), (b"x", b"1"), (b"y", b"2")]
    first = decoder.decode(encoder.encode(wanted))
    block = encoder.encode(wanted)
    again = decoder.decode(block)
    assert first == again == wanted
    assert decoder.decode(block) is again, "it changes nothing in the table"
    decoder.decode(encoder.encode([(b"z", b"3")]))
    assert decoder.decode(block)[1:] == [(b"y", b"2"), (b"z", b"3")], "the table has moved on"


def test_a_block_that_changes_the_table_is_decoded_each_time() -> None:
    decoder = Decoder(TABLE, LIST)
    for count in range(1, 4):
        assert decoder.decode(b"\x40\x01a\x01b") == [(b"a", b"b")]
        assert decoder.table_bytes == count * 34


@given(
    st.lists(
        st.sampled_from([b"\x82", b"\xbe", b"\xbf\xbe", b"\x40\x01a\x01b", b"\x40\x01c\x01d", b"\x20", b"\x3f\x41"])
    )
)
def test_what_is_remembered_changes_nothing(blocks: list[bytes]) -> None:
    decoder, oracle = Decoder(TABLE, LIST), hpack.Decoder(LIST)
    for block in blocks:
        try:
            expected = [tuple(field) for field in oracle.decode(block, raw=True)]
        except (hpack.HPACKError, IndexError):
            with pytest.raises(CompressionError):
                decoder.decode(block)
            return
        assert decoder.decode(block) == expected


@pytest.mark.parametrize("symbol", range(257))
def test_every_huffman_code(symbol: int) -> None:
    code, bits = REQUEST_CODES[symbol], REQUEST_CODES_LENGTH[symbol]
    padding = -bits % 8
    coded = (code << padding | (1 << padding) - 1).to_bytes((bits + padding) // 8, "big")
    block = b"\x00\x01x" + bytes([0x80 | len(coded)]) + coded
    if symbol == 256:
        with pytest.raises(CompressionError, match="end-of-string"):
            Decoder(TABLE, LIST).decode(block)
    else:
        assert Decoder(TABLE, LIST).decode(block) == [(b"x", bytes([symbol]))]


def test_the_examples_of_appendix_c() -> None:
    decoder = Decoder(TABLE, LIST)
    for text, last in (
        ("828684418cf1e3c2e5f23a6ba0ab90f4ff", (b":authority", b"www.example.com")),
        ("828684be5886a8eb10649cbf", (b"cache-control", b"no-cache")),
        ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", (b"custom-key", b"custom-value")),
    ):
        assert decoder.decode(bytes.fromhex(text))[-1] == last
    assert decoder.table_bytes == 164


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("80", "outside the table"),
        ("be", "outside the table"),
        ("ff", "cut short"),
        ("ffffffffffffff", "cut short or too large"),
        ("ff8080808001", "too large"),
        ("00", "where a string should be"),
        ("000178", "where a string should be"),
        ("00017805", "beyond its block"),
        ("3fe21f", "larger than was allowed"),
        ("8220", "inside a block"),
        ("00017881ff", "inside a Huffman code"),
        ("0001788100", "inside a Huffman code"),
        ("00017884ffffffff", "end-of-string"),
    ],
)
def test_what_is_wrong_is_named(block: str, reason: str) -> None:
    with pytest.raises(CompressionError, match=reason):
        Decoder(TABLE, LIST).decode(bytes.fromhex(block))


def test_a_list_over_the_limit_is_cut_and_the_table_kept() -> None:
    encoder, decoder = hpack.Encoder(), Decoder(TABLE, 200)
    long = [(b"a", b"1"), (b"b", b"2" * 150), (b"c", b"3")]
    assert decoder.decode(encoder.encode(long)) == [(b"a", b"1")]
    assert decoder.overflowed
    assert decoder.decode(encoder.encode([(b"c", b"3")])) == [(b"c", b"3")]
    assert not decoder.overflowed
