"""Authentication and authorization of requests, by their Authorization header or their client's certificate.

One `Authenticator` knows everybody, and re-reads its files; each listener has a `Gate`, which knows whom it lets in.
A request is judged by its head, before its body is read or takes anything from the budget.

    Authorization: Bearer TOKEN     compared with every token in constant time
    Authorization: Basic ...        bcrypt, in a thread
    none                            the names in the client's certificate, which TLS has verified

A header decides alone: a wrong one is refused, whatever the certificate. Not known is Unauthenticated (401), known and
without the right Forbidden (403).

What was found out is remembered by the header's bytes, so that a client which sends the same header again costs one
lookup. Only who is known is remembered. Passwords are not kept, but a keyed digest of the header (which no two headers
share, and which is of no use elsewhere). All of that is forgotten when a file changes. (The lookup hashes with a key
of the process and compares on an equal 64-bit hash only: its time tells nothing about other headers.)

Passwords are checked one at a time, `CHECKS_MAX` may wait; a user who is not known costs as much as one who is.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import bcrypt
from prometheus_client import Counter

from collector.errors import Forbidden, InvalidConfig, Malformed, Overloaded, Unauthenticated
from collector.security.credentials import ANY_SUBJECT, Credential, Known, digest, read_known
from collector.security.rights import NO_RIGHTS, Rights, name_of
from collector.security.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from prometheus_client import CollectorRegistry

KNOWN_MAX: Final = 1024
"""Headers, and sets of a certificate's names, that one listener remembers."""
HEADER_BYTES_MAX: Final = 8192
"""Bytes of an Authorization header."""
CHECKS_MAX: Final = 64
"""Passwords that are being checked or wait for it; beyond, clients are told to retry."""
PASSWORD_BYTES_MAX: Final = 72
"""What bcrypt takes into account of a password."""
REASONS: Final = ("unauthenticated", "forbidden")

Checking = asyncio.Future[Rights]
"""A password that is being checked; it becomes the rights, NO_RIGHTS when it is wrong."""


def read(credentials: Sequence[Credential]) -> Known:
    """Read the files of credentials; raise InvalidConfig for what cannot be used, with each file's first mistake."""
    problems = []
    try:
        return read_known(credentials)
    except Malformed as error:
        problems.append(f"auth.credentials: {error}")
    for one in credentials:
        try:
            read_known([one])
        except Malformed as error:
            problems.append(f"auth.credentials: {error}")
    raise InvalidConfig(list(dict.fromkeys(problems)))


class Authenticator:
    """Everybody who is known, to all listeners. Owned by the event loop's thread."""

    def __init__(self, credentials: Sequence[Credential], logger: Any, registry: CollectorRegistry) -> None:
        """Read the files; raise InvalidConfig for what cannot be used."""
        self._logger = logger
        self._credentials = tuple(credentials)
        self._watched = self._watch()
        self._gates: list[Gate] = []
        self.threads = ThreadPoolExecutor(1, "passwords")
        """Where bcrypt runs: one thread, so that guesses cannot take all cores."""
        self.refusals = Counter(
            "ringtail_auth_refusals",
            f"Requests refused for who sent them, by reason: {', '.join(REASONS)}.",
            ("listener", "reason"),
            registry=registry,
        )
        reloads = Counter(
            "ringtail_auth_reloads",
            "Changes of token and password files: success took effect, failure left the old contents in use.",
            ("outcome",),
            registry=registry,
        )
        self._reloads = {outcome: reloads.labels(outcome) for outcome in ("success", "failure")}
        self.known = read(self._credentials)

    def gate(self, listener: str, names: Collection[str] = ()) -> Gate:
        """Return a listener's gate for the credentials of these names, or for all when none is named."""
        made = Gate(listener, self, frozenset(names))
        self._gates.append(made)
        return made

    def reload(self) -> None:
        """Read files that have changed; what cannot be used leaves everything as it was."""
        if not self._watched.changed():
            return
        try:
            known = read(self._credentials)
        except InvalidConfig as error:
            self._reloads["failure"].inc()
            self._logger.error("credentials not reloaded, the old ones stay", reason=str(error))
        else:
            self.adopt(self._credentials, known)
            self._reloads["success"].inc()
            self._logger.info("credentials reloaded", credentials=len(self._credentials))

    def adopt(self, credentials: Sequence[Credential], known: Known) -> None:
        """Know these from now on; `known` is what `read` has returned for them."""
        if credentials != self._credentials:
            self._credentials = tuple(credentials)
            self._watched = self._watch()
        self.known = known
        for gate in self._gates:
            gate.renew()

    def close(self) -> None:
        """Check no more passwords."""
        self.threads.shutdown(wait=False, cancel_futures=True)

    def _watch(self) -> Watched:
        made = Watched([one.path for one in self._credentials if one.path])
        made.changed()
        return made


class Gate:
    """One listener's door. Owned by the event loop's thread."""

    def __init__(self, listener: str, authenticator: Authenticator, names: frozenset[str]) -> None:
        """Let in who has one of the credentials `names`, or any if none is named."""
        self._authenticator = authenticator
        self._names = names
        self._refusals = {reason: authenticator.refusals.labels(listener, reason) for reason in REASONS}
        self._key = os.urandom(32)
        self._rights: dict[bytes, Rights] = {}
        self._passwords: dict[bytes, Rights] = {}
        self._peers: dict[frozenset[str], Rights] = {}
        self._checking: dict[bytes, Checking] = {}
        self.renew()

    def renew(self) -> None:
        """Forget what was found out, and let in who is known now."""
        known = self._authenticator.known
        self._known = known.of(self._names) if self._names else known
        self._rights.clear()
        self._passwords.clear()
        self._peers.clear()
        self._checking.clear()
        self._challenges = self._find_challenges()

    def admit(self, header: bytes, peer: frozenset[str], right: int, tenant: str = "") -> Checking | None:
        """Let a request in that needs `right`, by its Authorization header, if any, or its client's names.

        `tenant` is the one that it names. Returns None when it may pass. While a password is being checked, returns what
        becomes the rights: give them to `require` then. Raises Unauthenticated, Forbidden, or Overloaded.
        """
        rights = self._rights.get(header)
        if rights is None:
            found = self._identify(header, peer)
            if not isinstance(found, Rights):
                return found
            rights = found
        if not rights.everywhere & right:
            self.require(rights, right, tenant)
        return None

    def require(self, rights: Rights, right: int, tenant: str = "") -> None:
        """Raise Unauthenticated for nobody's rights, and Forbidden if `right` is not among them for this tenant."""
        if rights.allow(right, tenant):
            return
        if rights == NO_RIGHTS:
            raise self._unauthenticated("wrong credentials")
        self._refusals["forbidden"].inc()
        if any(granted & right for _, granted in rights.within):
            whose = f"for the tenant {tenant[:64]!r}" if tenant else "for a request that names no tenant"
            raise Forbidden(f"these credentials are not {whose}")
        raise Forbidden(f"these credentials do not include the right to {name_of(right)}")

    def _identify(self, header: bytes, peer: frozenset[str]) -> Rights | Checking:
        if not header:
            return self._by_peer(peer)
        scheme, _, rest = header.partition(b" ")
        scheme = scheme.lower()
        if len(header) <= HEADER_BYTES_MAX:
            if scheme == b"bearer" and self._known.tokens:
                return self._by_token(header, rest.strip())
            if scheme == b"basic" and self._known.passwords:
                return self._by_password(header, rest.strip())
        raise self._unauthenticated("these credentials are of a kind that is not accepted here")

    def _by_token(self, header: bytes, token: bytes) -> Rights:
        presented = digest(token)
        rights = NO_RIGHTS
        # Each is compared, so that the time does not tell which one matched.
        for known, grant in self._known.tokens:
            if hmac.compare_digest(presented, known):
                rights |= grant.allows
        if rights != NO_RIGHTS:
            _keep(self._rights, header, rights)
        return rights

    def _by_peer(self, peer: frozenset[str]) -> Rights:
        rights = self._peers.get(peer, NO_RIGHTS)
        if rights == NO_RIGHTS:
            if peer:
                for name in (*peer, ANY_SUBJECT):
                    for grant in self._known.subjects.get(name, ()):
                        rights |= grant.allows
            if rights == NO_RIGHTS and (not peer or self._known.tokens or self._known.passwords):
                raise self._unauthenticated("credentials are missing")
            if rights == NO_RIGHTS:
                self._refusals["forbidden"].inc()
                raise Forbidden("this client's certificate is not one of those that are allowed")
            _keep(self._peers, peer, rights)
        return rights

    def _by_password(self, header: bytes, encoded: bytes) -> Rights | Checking:
        key = hashlib.sha256(self._key + header).digest()
        rights = self._passwords.get(key)
        if rights is not None:
            return rights
        checking = self._checking.get(key)
        if checking is not None:
            return checking
        try:
            user, colon, password = binascii.a2b_base64(encoded, strict_mode=True).partition(b":")
            name = user.decode()
        except ValueError:
            colon = b""
        if not colon or b"\0" in password:
            raise self._unauthenticated("this is no basic authentication")
        if len(self._checking) >= CHECKS_MAX:
            raise Overloaded(f"{CHECKS_MAX} passwords are being checked, which is the limit")
        known = self._known
        hashes = known.passwords.get(name) or [_unknown_user(known)]
        loop = asyncio.get_running_loop()
        made = self._checking[key] = loop.create_future()

        def checked(done: asyncio.Future[Rights]) -> None:
            rights = NO_RIGHTS if done.cancelled() or done.exception() is not None else done.result()
            if self._known is known:
                self._checking.pop(key, None)
                if rights != NO_RIGHTS:
                    _keep(self._passwords, key, rights)
            if not made.done():
                made.set_result(rights)

        job = loop.run_in_executor(self._authenticator.threads, _check, password[:PASSWORD_BYTES_MAX], hashes)
        job.add_done_callback(checked)
        return made

    def _unauthenticated(self, message: str) -> Unauthenticated:
        self._refusals["unauthenticated"].inc()
        return Unauthenticated(message, self._challenges)

    def _find_challenges(self) -> tuple[str, ...]:
        found = ['Bearer realm="ringtail"'] if self._known.tokens or not self._known.passwords else []
        if self._known.passwords:
            found.append('Basic realm="ringtail", charset="UTF-8"')
        return tuple(found)


def _unknown_user(known: Known) -> tuple[bytes, Any]:
    """Return a hash that no password has, of the usual cost."""
    return b"$2b$%02d$" % known.cost() + b"." * 53, None


def _check(password: bytes, hashes: Iterable[tuple[bytes, Any]]) -> Rights:
    """Return the rights that a password gives; in a thread."""
    rights = NO_RIGHTS
    for hashed, grant in hashes:
        if bcrypt.checkpw(password, hashed) and grant is not None:
            rights |= grant.allows
    return rights


def _keep(kept: dict[Any, Rights], key: bytes | frozenset[str], rights: Rights) -> None:
    if len(kept) >= KNOWN_MAX:
        kept.clear()
    kept[key] = rights
