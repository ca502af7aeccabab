"""Texts that something on the way might change, cut, refuse or obey."""

from __future__ import annotations

from random import Random

TEXTS = (
    "\0",
    "a\0b",
    "\ufeffbyte order mark",
    "\u202egnirts LTR a",
    "\u2066isolated\u2069 \u200b\u200d zero width",
    "e\u0301 combining, not \u00e9",
    "\uffff\ufffe\U0010ffff no characters",
    "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "\r\nSet-Cookie: a=b",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "\"'`\\${jndi:ldap://x}{{7*7}}%s%n%00",
    "a\nb 1\n# TYPE injected counter\ninjected 1",
    'x"} 1\ninjected{a="b',
    "'; DROP TABLE spans; --",
    "../../../../etc/passwd",
    "=cmd|' /C calc'!A0",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea",
    " leading and trailing \t",
    "\x7f\x80\x85\u2028\u2029",
)

INVALID_UTF8 = (
    b"\xff",
    b"\xc0\x80",  # NUL, overlong
    b"\xed\xa0\x80",  # a lone surrogate
    b"\xed\xa0\xbd\xed\xb8\x80",  # two of them
    b"\xf4\x90\x80\x80",  # beyond the last character
    b"\xe2\x82",  # cut short
    b"a\x80b",
    b"\xf8\x88\x80\x80\x80",
)


def random_text(chance: Random) -> str:
    """A text of characters from everywhere, those that matter more often."""
    made = []
    for _ in range(chance.randint(1, 12)):
        match chance.randrange(4):
            case 0:
                made.append(chance.choice(TEXTS))
            case 1:
                made.append(chr(chance.randrange(0x20)))
            case 2:
                made.append(chance.choice("{}[]()\"\\'`#=,:;<>%$&\n"))
            case _:
                code = chance.randrange(0x110000)
                made.append(chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd")
    return "".join(made)
