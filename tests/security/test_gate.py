"""Who passes a gate: tokens, passwords, certificates, rights, and what is remembered of them."""

from __future__ import annotations

import asyncio
import hmac
import os
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from collector.errors import Forbidden, InvalidConfig, Overloaded, Unauthenticated
from collector.security import gate as module
from collector.security.credentials import Credential
from collector.security.gate import CHECKS_MAX, HEADER_BYTES_MAX, KNOWN_MAX, Authenticator, Gate, read
from collector.security.rights import ADMINISTER, NO_RIGHTS, READ, WRITE
from tests.receivers.doubles import MemoryLogger

NO_NAMES: frozenset[str] = frozenset()
TOKEN, OTHER = "token-token-token-1", "token-token-token-2"
CHALLENGES = {"bearer": 'Bearer realm="ringtail"', "basic": 'Basic realm="ringtail", charset="UTF-8"'}


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode()


def basic(user: str, password: str) -> bytes:
    return b"Basic " + b64encode(f"{user}:{password}".encode())


def write(path: Path, text: str) -> None:
    path.write_bytes(text.encode(errors="surrogateescape"))


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


class Doors:
    """An authenticator and its one gate."""

    def __init__(self, *credentials: Credential, names: tuple[str, ...] = ()) -> None:
        self.registry = CollectorRegistry()
        self.logger = MemoryLogger()
        self.authenticator = Authenticator(credentials, self.logger, self.registry)
        self.gate: Gate = self.authenticator.gate("api", names)

    async def admit(self, header: bytes, right: int = READ, peer: frozenset[str] = NO_NAMES, tenant: str = "") -> None:
        """Pass, or raise."""
        checking = self.gate.admit(header, peer, right, tenant)
        if checking is not None:
            self.gate.require(await checking, right, tenant)

    def refused(self, reason: str) -> float:
        found = self.registry.get_sample_value("ringtail_auth_refusals_total", {"listener": "api", "reason": reason})
        return found or 0.0

    def reloads(self, outcome: str) -> float:
        return self.registry.get_sample_value("ringtail_auth_reloads_total", {"outcome": outcome}) or 0.0


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(f"# people\n\nann:{hashed('right')}\nben:{hashed('ßecret:with:colons')}\n")
    return path


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads in which passwords were checked."""
    threads: list[int] = []
    real = bcrypt.checkpw

    def noting(password: bytes, known: bytes) -> bool:
        threads.append(threading.get_ident())
        return bool(real(password, known))

    monkeypatch.setattr(module.bcrypt, "checkpw", noting)
    return threads


async def test_tokens() -> None:
    doors = Doors(
        Credential("a", WRITE, tokens=(TOKEN, OTHER)),
        Credential("b", READ | ADMINISTER, tokens=("token-token-token-3",)),
    )
    for header in (bearer(TOKEN), bearer(OTHER), f"bEaReR   {TOKEN} ".encode()):
        for _ in range(2):
            await doors.admit(header, WRITE)
            with pytest.raises(Forbidden) as caught:
                await doors.admit(header, READ)
            assert str(caught.value) == "these credentials do not include the right to read"
    await doors.admit(bearer("token-token-token-3"), ADMINISTER)
    assert doors.refused("forbidden") == 6
    wrong = [b"", b"Bearer", b"Bearer ", TOKEN.encode(), bearer(TOKEN + "x"), bearer(TOKEN[:-1]), bearer(TOKEN.upper())]
    wrong += [b"Token " + TOKEN.encode(), basic("a", TOKEN), bearer(f"{TOKEN}, Bearer {TOKEN}")]
    wrong += [bearer(TOKEN + " " * HEADER_BYTES_MAX), b"\xff\x00"]
    for header in wrong:
        with pytest.raises(Unauthenticated) as refused:
            await doors.admit(header, WRITE)
        assert refused.value.challenges == (CHALLENGES["bearer"],)
        assert TOKEN not in str(refused.value)
    assert doors.refused("unauthenticated") == len(wrong)


@given(st.binary(max_size=60))
def test_no_other_header_passes(header: bytes) -> None:
    doors = Doors(Credential("a", READ, tokens=(TOKEN,)))
    with pytest.raises(Unauthenticated):
        doors.gate.admit(header, NO_NAMES, READ)


async def test_a_credential_is_for_its_tenants_only(tmp_path: Path) -> None:
    htpasswd = tmp_path / "htpasswd"
    write(htpasswd, f"ann:{hashed('right')}\n")
    doors = Doors(
        Credential("red and blue", READ | WRITE, tenants=("red", "blue"), tokens=(TOKEN,)),
        Credential("green reads, all write", READ, tenants=("green",), tokens=(OTHER,)),
        Credential("all write", WRITE, tokens=(OTHER,)),
        Credential("ann", READ, tenants=("red",), htpasswd_file=str(htpasswd)),
        Credential("agent", WRITE, tenants=("red",), subjects=("agent",)),
    )
    agent = frozenset({"agent"})
    for _ in range(2):  # the second time from what is remembered
        for tenant in ("red", "blue"):
            await doors.admit(bearer(TOKEN), WRITE, tenant=tenant)
        await doors.admit(bearer(OTHER), READ, tenant="green")
        await doors.admit(bearer(OTHER), WRITE, tenant="red")
        await doors.admit(basic("ann", "right"), tenant="red")
        await doors.admit(b"", WRITE, agent, "red")
        for header, right, peer, tenant in (
            (bearer(TOKEN), READ, NO_NAMES, "green"),
            (bearer(TOKEN), READ, NO_NAMES, "red, green"),
            (bearer(TOKEN), READ, NO_NAMES, "Red"),
            (bearer(OTHER), READ, NO_NAMES, "red"),
            (basic("ann", "right"), READ, NO_NAMES, "blue"),
            (b"", WRITE, agent, "blue"),
        ):
            with pytest.raises(Forbidden, match="not for the tenant"):
                await doors.admit(header, right, peer, tenant)
        with pytest.raises(Forbidden, match="names no tenant"):
            await doors.admit(bearer(TOKEN))
        with pytest.raises(Forbidden, match="right to administer"):
            await doors.admit(bearer(TOKEN), ADMINISTER, tenant="red")


async def test_one_token_of_two_credentials_has_the_rights_of_both() -> None:
    doors = Doors(Credential("a", WRITE, tokens=(TOKEN,)), Credential("b", READ, tokens=(TOKEN,)))
    await doors.admit(bearer(TOKEN), WRITE)
    await doors.admit(bearer(TOKEN), READ)


async def test_a_listener_may_know_some_only() -> None:
    doors = Doors(Credential("a", READ, tokens=(TOKEN,)), Credential("b", READ, tokens=(OTHER,)), names=("b",))
    await doors.admit(bearer(OTHER))
    with pytest.raises(Unauthenticated):
        await doors.admit(bearer(TOKEN))


async def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def comparing(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    doors = Doors(Credential("a", READ, tokens=(TOKEN, OTHER)), Credential("b", READ, tokens=("token-token-token-3",)))
    monkeypatch.setattr(module.hmac, "compare_digest", comparing)
    await doors.admit(bearer(TOKEN))
    assert len(compared) == 3
    assert {len(one) for pair in compared for one in pair} == {32}
    await doors.admit(bearer(TOKEN))
    assert len(compared) == 3, "a known header is looked up"


async def test_what_is_remembered_is_bounded() -> None:
    doors = Doors(Credential("a", READ, tokens=(TOKEN,)))
    for i in range(KNOWN_MAX + 10):
        await doors.admit(b"Bearer " + b" " * i + TOKEN.encode())
    for i in range(KNOWN_MAX + 10):
        with pytest.raises(Unauthenticated):
            await doors.admit(bearer(f"wrong-{i}"))
    assert 0 < len(doors.gate._rights) <= KNOWN_MAX


# Passwords


async def test_passwords(htpasswd: Path, checks: list[int]) -> None:
    doors = Doors(
        Credential("people", READ, htpasswd_file=str(htpasswd)),
        Credential("ben too", WRITE, htpasswd_file=str(htpasswd), users=("ben",)),
    )
    for _ in range(3):
        await doors.admit(basic("ann", "right"))
        await doors.admit(basic("ben", "ßecret:with:colons"), WRITE)
    with pytest.raises(Forbidden):
        await doors.admit(basic("ann", "right"), WRITE)
    assert len(checks) == 3, "once for ann, and for ben with both hashes"
    assert threading.get_ident() not in checks, "the loop goes on meanwhile"
    for header in (
        basic("ann", "wrong"),
        basic("nobody", "right"),
        basic("ben", ""),
        basic("", ""),
        basic("Ann", "right"),
    ):
        with pytest.raises(Unauthenticated) as caught:
            await doors.admit(header)
        assert caught.value.challenges == (CHALLENGES["basic"],)
    checks.clear()
    for header in (b"Basic", b"Basic !!!", b"Basic " + b64encode(b"no colon"), b"Basic " + b64encode(b"\xff:x")):
        with pytest.raises(Unauthenticated):
            await doors.admit(header)
    with pytest.raises(Unauthenticated):
        await doors.admit(basic("ann", "right\0"))
    assert checks == []


async def test_an_unknown_user_costs_as_much_as_a_known_one(htpasswd: Path, checks: list[int]) -> None:
    doors = Doors(Credential("people", READ, htpasswd_file=str(htpasswd)))
    for user in ("ann", "nobody"):
        with pytest.raises(Unauthenticated):
            await doors.admit(basic(user, "wrong"))
    assert len(checks) == 2


async def test_a_password_is_checked_once_for_many_who_wait(htpasswd: Path, checks: list[int]) -> None:
    doors = Doors(Credential("people", READ, htpasswd_file=str(htpasswd)))
    await asyncio.gather(*(doors.admit(basic("ann", "right")) for _ in range(50)))
    assert len(checks) == 1


async def test_passwords_that_wait_are_bounded_and_others_are_told_to_retry(htpasswd: Path) -> None:
    doors = Doors(Credential("people", READ, htpasswd_file=str(htpasswd)), Credential("a", READ, tokens=(TOKEN,)))
    waiting = [doors.gate.admit(basic("ann", f"wrong {i}"), NO_NAMES, READ) for i in range(CHECKS_MAX)]
    with pytest.raises(Overloaded):
        doors.gate.admit(basic("ann", "one more"), NO_NAMES, READ)
    await doors.admit(bearer(TOKEN))
    for one in waiting:
        assert one is not None
        assert await one == NO_RIGHTS
    await doors.admit(basic("ann", "right"))


async def test_no_password_and_no_plain_header_is_kept(htpasswd: Path) -> None:
    doors = Doors(Credential("people", READ, htpasswd_file=str(htpasswd)))
    await doors.admit(basic("ann", "right"))
    kept: Any = [doors.gate._rights, doors.gate._passwords]
    assert kept[0] == {}
    assert [len(key) for key in kept[1]] == [32]
    other = Doors(Credential("people", READ, htpasswd_file=str(htpasswd)))
    await other.admit(basic("ann", "right"))
    assert set(other.gate._passwords) != set(kept[1]), "the digest is keyed"


async def test_a_password_that_was_changed_while_it_was_checked_is_not_remembered(htpasswd: Path) -> None:
    doors = Doors(Credential("people", READ, htpasswd_file=str(htpasswd)))
    checking = doors.gate.admit(basic("ann", "right"), NO_NAMES, READ)
    write(htpasswd, f"ann:{hashed('new')}\n")
    doors.authenticator.reload()
    assert checking is not None
    await checking
    with pytest.raises(Unauthenticated):
        await doors.admit(basic("ann", "right"))
    await doors.admit(basic("ann", "new"))


# Certificates


async def test_subjects() -> None:
    doors = Doors(
        Credential("agents", WRITE, subjects=("agent", "spiffe://x/agent")), Credential("any", READ, subjects=("*",))
    )
    for peer in (frozenset({"agent"}), frozenset({"spiffe://x/agent", "other"})):
        await doors.admit(b"", WRITE, peer)
        await doors.admit(b"", READ, peer)
    await doors.admit(b"", READ, frozenset({"stranger"}))
    with pytest.raises(Forbidden):
        await doors.admit(b"", WRITE, frozenset({"stranger", "*"}))
    with pytest.raises(Unauthenticated):
        await doors.admit(b"")


async def test_a_certificate_that_is_not_on_the_list() -> None:
    stranger = frozenset({"stranger"})
    only = Doors(Credential("agents", WRITE, subjects=("agent",)))
    with pytest.raises(Forbidden):
        await only.admit(b"", WRITE, stranger)
    beside = Doors(Credential("agents", WRITE, subjects=("agent",)), Credential("a", READ, tokens=(TOKEN,)))
    with pytest.raises(Unauthenticated):
        await beside.admit(b"", WRITE, stranger)
    with pytest.raises(Unauthenticated):
        await beside.admit(bearer(OTHER), WRITE, frozenset({"agent"}))  # a wrong token is not made good
    with pytest.raises(Forbidden):
        await beside.admit(bearer(TOKEN), WRITE, frozenset({"agent"}))


# Files that change


async def test_tokens_are_rotated_by_their_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    write(path, f"\ufeff# old\n{TOKEN}\n")
    doors = Doors(Credential("a", READ, token_file=str(path)))
    await doors.admit(bearer(TOKEN))
    write(path, f"{TOKEN}\r\n\n  {OTHER}  \n")
    doors.authenticator.reload()
    await doors.admit(bearer(TOKEN))
    await doors.admit(bearer(OTHER))
    write(path, f"{OTHER}\n")
    doors.authenticator.reload()
    with pytest.raises(Unauthenticated):
        await doors.admit(bearer(TOKEN))
    await doors.admit(bearer(OTHER))
    doors.authenticator.reload()
    assert (doors.reloads("success"), doors.reloads("failure")) == (2, 0)


@pytest.mark.parametrize("broken", ["", "# nothing\n", "short\n", f"{TOKEN} with more\n", None, "\udcff"])
async def test_a_broken_file_changes_nothing(tmp_path: Path, broken: str | None) -> None:
    path = tmp_path / "tokens"
    write(path, f"{TOKEN}\n")
    doors = Doors(Credential("a", READ, token_file=str(path)))
    if broken is None:
        os.unlink(path)
    else:
        write(path, broken)
    doors.authenticator.reload()
    doors.authenticator.reload()
    await doors.admit(bearer(TOKEN))
    assert (doors.reloads("success"), doors.reloads("failure")) == (0, 1)
    ((event, fields),) = doors.logger.events
    assert event == "credentials not reloaded, the old ones stay"
    assert str(path) in fields["reason"]
    assert TOKEN not in fields["reason"]
    write(path, f"{OTHER}\n")
    doors.authenticator.reload()
    await doors.admit(bearer(OTHER))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann:right\n", ":1: is not USER:HASH with a bcrypt hash"),
        ("\nann:$apr1$x$y\n", ":2: is not USER:HASH"),
        ("ann:{SHA}xyz\n", ":1: is not USER:HASH"),
        (f":$2y$04${'a' * 53}\n", ":1: is not USER:HASH"),
        (f"ann:$2y$04${'a' * 53}\nann:$2y$04${'b' * 53}\n", ":2: the user stands here twice"),
        (f"ann:$2y$20${'a' * 53}\n", ":1: bcrypt's cost is 20; 4 to 15 will do"),
        (f"ben:$2y$04${'a' * 53}\n", ": has no user ann"),
    ],
)
def test_a_password_file_that_cannot_be_used(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "htpasswd"
    write(path, text)
    with pytest.raises(InvalidConfig) as caught:
        Doors(Credential("people", READ, htpasswd_file=str(path), users=("ann",)))
    (problem,) = caught.value.problems
    assert problem.startswith(f"auth.credentials: {path}{expected}")
    assert "right" not in problem


async def test_credentials_are_replaced_as_a_whole(tmp_path: Path) -> None:
    doors = Doors(Credential("a", READ, tokens=(TOKEN,)))
    await doors.admit(bearer(TOKEN))
    new = [Credential("another", READ, tokens=(OTHER,))]
    doors.authenticator.adopt(new, read(new))
    with pytest.raises(Unauthenticated):
        await doors.admit(bearer(TOKEN))
    await doors.admit(bearer(OTHER))
    with pytest.raises(InvalidConfig):
        read([Credential("a", READ, token_file=str(tmp_path / "none"))])
