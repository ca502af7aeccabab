"""What a configuration opens to the network, and to whom: the listeners, their TLS, and who is asked.

Said in one place, for the checks before a start, for the warnings at it, and for `/api/stats`. Listening beyond
loopback without TLS or without authentication is allowed, and never silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from collector.config import Access, Config, Credential, Tls
from collector.quantities import split_address
from collector.security import credentials
from collector.security.hosts import is_loopback
from collector.security.rights import rights_of
from collector.security.tls import TlsFiles

_PROOFS: Final = ("tokens", "token_file", "htpasswd_file", "subjects")


@dataclass(frozen=True, slots=True)
class Opening:
    """A listener as it is configured."""

    name: str
    """What logs, metrics and `/api/stats` call it."""
    key: str
    """The configuration's name of its group."""
    endpoint: str
    tls: Tls
    access: Access
    asked: bool
    """Whether clients must say who they are."""

    @property
    def host(self) -> str:
        """The address that it is bound to."""
        return split_address(self.endpoint)[0]

    @property
    def purpose(self) -> str:
        """What it is for, in people's words."""
        return {"otlp/grpc": "OTLP/gRPC", "otlp/http": "OTLP/HTTP"}.get(self.name, "queries")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    @property
    def files(self) -> TlsFiles | None:
        """What its TLS is made of; None for plaintext."""
        tls = self.tls
        if tls.cert_file is None or tls.key_file is None:
            return None
        return TlsFiles(
            f"{self.key}.tls",
            tls.cert_file,
            tls.key_file,
            tls.client_ca_file,
            tls.min_version,
            tls.max_version,
            tls.cipher_suites,
        )

    @property
    def is_checked(self) -> bool:
        """Whether strangers are kept out, by credentials or by certificates."""
        return self.asked or (self.files is not None and self.tls.client_ca_file is not None)

    def warnings(self) -> list[str]:
        """Say what is missing for a network, and which keys would set it."""
        if self.is_local:
            return []
        found = []
        if self.files is None:
            secret = "; credentials travel in the clear" if self.asked else ""
            found.append(f"no TLS{secret}: set {self.key}.tls.cert_file and key_file")
        if not self.is_checked:
            found.append(
                f"no authentication, whoever reaches it may use it: set auth.credentials or {self.key}.tls.client_ca_file"
                if self.access.enabled
                else f"no authentication, whoever reaches it may use it: {self.key}.auth.enabled is false"
            )
        return found

    def stats(self) -> dict[str, Any]:
        """Return this listener's part of `/api/stats`."""
        return {
            "loopback": self.is_local,
            "tls": self.files is not None,
            "client_certificates": self.files is not None and self.tls.client_ca_file is not None,
            "authentication": self.asked,
            "warnings": self.warnings(),
        }


def openings(config: Config) -> list[Opening]:
    """Return all listeners."""
    protocols = config.receivers.otlp.protocols
    found = []
    for name, key, group in (
        ("otlp/grpc", "receivers.otlp.protocols.grpc", protocols.grpc),
        ("otlp/http", "receivers.otlp.protocols.http", protocols.http),
        ("api", "api", config.api),
        ("api/grpc", "api.grpc", config.api.grpc),
    ):
        if group is not None:
            asked = group.auth.enabled and bool(config.auth.credentials)
            found.append(Opening(name, key, group.endpoint, group.tls, group.auth, asked))
    return found


def known_credentials(config: Config) -> list[credentials.Credential]:
    """Return the configuration's credentials, for those who check them."""
    return [
        credentials.Credential(
            one.name,
            rights_of(one.rights),
            one.tenants,
            tuple(token.reveal() for token in one.tokens),
            one.token_file,
            one.htpasswd_file,
            one.users,
            one.subjects,
        )
        for one in config.auth.credentials
    ]


def conflicts(config: Config) -> Iterator[tuple[str, str]]:
    """Yield settings of TLS and authentication that do not go together: the key, and what is wrong with it."""
    names: set[str] = set()
    for i, one in enumerate(config.auth.credentials):
        key = f"auth.credentials[{i}]"
        if one.name in names:
            yield f"{key}.name", f"{one.name} is the name of another one already"
        names.add(one.name)
        if one.tenants and not config.tenants.enabled:
            yield f"{key}.tenants", "tenants are not kept apart; tenants.enabled does that"
        yield from _credential_conflicts(one, key)
    found = openings(config)
    for opening in found:
        yield from _tls_conflicts(opening)
        for i, name in enumerate(opening.access.credentials):
            if name not in names:
                known = ", ".join(sorted(names)) or "none"
                yield f"{opening.key}.auth.credentials", f"[{i}]: there is no {name} in auth.credentials, only: {known}"
    for i, one in enumerate(config.auth.credentials):
        if one.subjects and not any(_checks_certificate(opening, one.name) for opening in found):
            yield (
                f"auth.credentials[{i}].subjects",
                "no listener where this counts verifies certificates; set tls.client_ca_file there",
            )


def _checks_certificate(opening: Opening, name: str) -> bool:
    counts = not opening.access.credentials or name in opening.access.credentials
    return opening.asked and counts and opening.tls.client_ca_file is not None


def _credential_conflicts(one: Credential, key: str) -> Iterator[tuple[str, str]]:
    given = [proof for proof in _PROOFS if getattr(one, proof)]
    if len(given) != 1:
        has = f"has {' and '.join(given)}" if given else "has none"
        yield f"{key}.name", f"needs one of {', '.join(_PROOFS)}, and {has}"
    if not one.rights:
        yield f"{key}.rights", "is empty; whoever has no right is better left out"
    if one.users and not one.htpasswd_file:
        yield f"{key}.users", "are of an htpasswd_file, which is not set"


def _tls_conflicts(opening: Opening) -> Iterator[tuple[str, str]]:
    tls, key = opening.tls, f"{opening.key}.tls"
    if tls.cert_file is not None and tls.key_file is None:
        yield f"{key}.cert_file", "needs key_file beside it"
    if tls.key_file is not None and tls.cert_file is None:
        yield f"{key}.key_file", "needs cert_file beside it"
    if tls.client_ca_file is not None and tls.cert_file is None:
        yield f"{key}.client_ca_file", "needs cert_file and key_file beside it; without TLS there are no certificates"
    if tls.min_version > tls.max_version:
        yield f"{key}.min_version", f"must not be above max_version, which is {tls.max_version}"
