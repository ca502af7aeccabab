"""The dates of certificates, as they were made by another library; and what is no certificate is left out."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from collector.security.validity import dates, outdated

KEY = ec.generate_private_key(ec.SECP256R1())
MOMENTS = st.integers(-631_152_000, 253_000_000_000).map(lambda one: dt.datetime.fromtimestamp(one, dt.UTC))


def made(
    begins: dt.datetime, ends: dt.datetime, *, key: ec.EllipticCurvePrivateKey | None = KEY, name: str = "x"
) -> str:
    """A certificate in PEM, self-signed; without a key of its own signed by Ed25519."""
    signer = key or ed25519.Ed25519PrivateKey.generate()
    names = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.LOCALITY_NAME, "ü" * 90)]
    )
    builder = x509.CertificateBuilder(names, names, signer.public_key(), x509.random_serial_number(), begins, ends)
    certificate = builder.sign(signer, hashes.SHA256() if key else None)
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def seconds(moment: dt.datetime) -> int:
    return int(moment.timestamp())


@given(MOMENTS, MOMENTS)
def test_dates_are_those_of_the_certificate(one: dt.datetime, other: dt.datetime) -> None:
    begins, ends = sorted([one, other])
    assert list(dates(made(begins, ends))) == [(seconds(begins), seconds(ends))]


def test_every_certificate_of_a_file_is_read_and_other_things_are_not(tmp_path: Path) -> None:
    now = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    day = dt.timedelta(days=1)
    good, old, early = (made(now - n * day, now + m * day, key=None) for n, m in ((1, 1), (3, -2), (-2, 3)))
    key = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    path = tmp_path / "chain.pem"
    for text, expected in (
        (good, ""),
        (f"words\n{good}{key}", ""),
        (old, f"{path}: the certificate has expired, on 2026-05-30"),
        (early, f"{path}: the certificate is not valid before 2026-06-03"),
        (f"{key}{good}{old}", f"{path}: certificate 2 of 2 has expired, on 2026-05-30"),
    ):
        path.write_text(text)
        assert outdated(str(path), now.timestamp()) == expected
    assert outdated(str(tmp_path / "nothing"), 0) == ""


@pytest.mark.parametrize("at", range(0, 700, 7))
def test_a_certificate_that_is_cut_short_or_damaged_is_none(at: int) -> None:
    text = made(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    assert len(list(dates(text[:at] + text[at + 5 :]))) <= 1
    assert len(list(dates(text[:at] + "-----END CERTIFICATE-----"))) <= 1
