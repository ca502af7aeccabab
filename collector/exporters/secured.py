"""TLS of what exporters connect to, as `ClientTls` says it, for exporters whose connections take an `ssl.SSLContext`."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from collector.errors import Unwelcome
from collector.security.suites import CIPHER_SUITES

if TYPE_CHECKING:
    from collector.exporters.settings import ClientTls

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """Return a context that verifies a server's certificate and name, and shows the client's own if there is one.

    With `ca_file` no other authorities are trusted. It reads the files, 40 ms of the system's. Raises Unwelcome for files
    that cannot be used.
    """
    try:
        made = ssl.create_default_context(cafile=tls.ca_file)
        made.minimum_version = _VERSIONS[tls.min_version]
        if tls.cipher_suites:
            made.set_ciphers(":".join(CIPHER_SUITES[one] for one in tls.cipher_suites))
        if tls.cert_file is not None:
            made.load_cert_chain(tls.cert_file, tls.key_file, lambda: "")
    except OSError as error:
        raise Unwelcome(f"the files of tls cannot be used: {error.strerror or error}") from error
    return made
