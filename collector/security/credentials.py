"""Credentials: who is known, by token, password or certificate, and what they may do.

A `Credential` is one entry of the configuration; `Known` is all of them, read from their files, and immutable: files
that change make a new one. Tokens are kept as SHA-256 digests, so that comparing them in constant time means the same
for tokens of any length. Passwords are bcrypt's, of `htpasswd -B`; other forms of that file are refused by their line,
for they are as good as the password itself.

Files:
    token_file      a token a line; empty lines and lines that begin with # are read over
    htpasswd_file   USER:HASH a line; the same

No message repeats what stands in such a file. An empty one is a mistake, because it is what a file looks like while
it is written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from collector.errors import Malformed
from collector.security.rights import Rights
from collector.security.watched import read_lines

TOKEN_CHARACTERS_MIN: Final = 16
TOKENS_MAX: Final = 1024
"""Tokens of all credentials: each is compared with what a client presents."""
ANY_SUBJECT: Final = "*"
COST_MAX: Final = 15
"""Of bcrypt: two seconds of CPU for one check."""

_TOKEN: Final = re.compile(rf"[\x21-\x7e]{{{TOKEN_CHARACTERS_MIN},4096}}")
_BCRYPT: Final = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")


@dataclass(frozen=True, slots=True)
class Credential:
    """One way to be known; of tokens, token_file, htpasswd_file and subjects one is given. No tenants: for all."""

    name: str
    rights: int
    tenants: tuple[str, ...] = ()
    tokens: tuple[str, ...] = field(default=(), repr=False)
    token_file: str | None = None
    htpasswd_file: str | None = None
    users: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()

    @property
    def path(self) -> str | None:
        """The file that it is read from."""
        return self.token_file or self.htpasswd_file


class Grant(NamedTuple):
    """A match: of which credential, and what it allows."""

    name: str
    allows: Rights


@dataclass(frozen=True, slots=True)
class Known:
    """Everybody who is known."""

    tokens: Sequence[tuple[bytes, Grant]] = field(default=(), repr=False)
    """SHA-256 of each token."""
    passwords: Mapping[str, Sequence[tuple[bytes, Grant]]] = field(default_factory=dict, repr=False)
    """The bcrypt hashes of each user: one for each credential that has them."""
    subjects: Mapping[str, Sequence[Grant]] = field(default_factory=dict)
    """What each name in a certificate allows."""

    def of(self, names: Iterable[str]) -> Known:
        """Return those of some credentials."""
        wanted = frozenset(names)
        passwords = {user: [one for one in some if one[1].name in wanted] for user, some in self.passwords.items()}
        subjects = {subject: [one for one in some if one.name in wanted] for subject, some in self.subjects.items()}
        return Known(
            [one for one in self.tokens if one[1].name in wanted],
            {user: some for user, some in passwords.items() if some},
            {subject: some for subject, some in subjects.items() if some},
        )

    def cost(self) -> int:
        """Return bcrypt's highest cost, for who is not known to cost as much."""
        costs = [int(one[0][4:6]) for some in self.passwords.values() for one in some]
        return max(costs, default=0)


def read_known(credentials: Iterable[Credential]) -> Known:
    """Read all files; raise Malformed, naming file and line, for what cannot be used."""
    tokens: list[tuple[bytes, Grant]] = []
    passwords: dict[str, list[tuple[bytes, Grant]]] = {}
    subjects: dict[str, list[Grant]] = {}
    for one in credentials:
        allows = Rights(within=((frozenset(one.tenants), one.rights),)) if one.tenants else Rights(one.rights)
        grant = Grant(one.name, allows)
        given = [*one.tokens, *(_tokens_of(one.token_file) if one.token_file else ())]
        tokens += [(digest(token.encode()), grant) for token in given]
        if one.htpasswd_file:
            for user, hashed in _users_of(one.htpasswd_file, one.users).items():
                passwords.setdefault(user, []).append((hashed, grant))
        for subject in one.subjects:
            subjects.setdefault(subject, []).append(grant)
    if len(tokens) > TOKENS_MAX:
        raise Malformed(f"there are {len(tokens)} tokens; the limit is {TOKENS_MAX}")
    return Known(tokens, passwords, subjects)


def digest(token: bytes) -> bytes:
    """Return what tokens are compared by."""
    return hashlib.sha256(token).digest()


def _tokens_of(path: str) -> list[str]:
    found = []
    for number, line in read_lines(path):
        if not _TOKEN.fullmatch(line):
            raise Malformed(
                f"{path}:{number}: is no token: at least {TOKEN_CHARACTERS_MIN} printable ASCII characters, no spaces"
            )
        found.append(line)
    if not found:
        raise Malformed(f"{path}: holds no token")
    return found


def _users_of(path: str, wanted: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number, line in read_lines(path):
        user, colon, hashed = line.partition(":")
        match = _BCRYPT.fullmatch(hashed)
        if not colon or not user or match is None:
            raise Malformed(f"{path}:{number}: is not USER:HASH with a bcrypt hash, as htpasswd -B writes it")
        if int(match[1]) > COST_MAX or int(match[1]) < 4:
            raise Malformed(f"{path}:{number}: bcrypt's cost is {int(match[1])}; 4 to {COST_MAX} will do")
        if user in found:
            raise Malformed(f"{path}:{number}: the user stands here twice")
        found[user] = hashed.encode()
    missing = [user for user in wanted if user not in found]
    if missing or not found:
        raise Malformed(f"{path}: has no user {missing[0]}" if missing else f"{path}: holds no user")
    return {user: found[user] for user in wanted} if wanted else found
