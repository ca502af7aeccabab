"""R17: more than 150 broken configurations. Exit status 2, file, line and key of every mistake, no traceback, no secret."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from random import Random

import pytest
import yaml
from click.testing import CliRunner

from collector.cli import main
from collector.settings import dump, entries, load
from tests.daemon import COMMAND, environment

SHIPPED = (Path(__file__).parents[2] / "config" / "collector.yaml").read_text()
LINES = [line for line in SHIPPED.splitlines() if line.strip() and not line.strip().startswith("#")]
KEYS = {
    key: metadata
    for key, metadata, _ in entries()
    if metadata["kind"] not in ("section", "sections") and "[]" not in key and not key.startswith("exporters.")
}
"""Keys that a file may have with one value; those of credentials and exporters are tested in tests/security and tests/exporters."""
SECRET = "correct-horse-battery-staple"

WRONG = {
    "size": ("-1", "1XB", "many", "[1]", "{}", "1.5.5MiB", "9" * 30 + "TiB", "0x10", "1 2", "''"),
    "duration": ("5", "-1s", "1 hour", "1x", "[]", "1h1", "99999999999d", "1e3s"),
    "count": ("-1", "1.5", "many", "[]", "1e3", "0x1", "٣", "9" * 19),
    "address": ("localhost", "1.2.3.4.5:1", "http://localhost:1", "::1:1", "localhost:99999", "a b:1", ":-1", '"[::1"'),
    "memory": ("0%", "101%", "lots", "-5", "[]", "12X"),
    "switch": ("maybe", "2", "[]", "yes please"),
    "choice": ("sometimes", "[]", "ALWAYS "[:6], "''"),
    "path": ('"a\\0b"', "[a]", "{a: b}"),
    "route": ("v1", '"/a b"', '"/a?b"', "[]"),
    "name": ('""', "{a: b}"),
    "text": ("[a]", "{a: b}"),
    "host": ('"a b"', "{a: b}"),
    "origin": ("example.com", "{a: b}"),
    "header": ('"a b"', "{a: b}"),
    "named": ("5", "[otlp]", "otlp"),
}


def flat(key: str, value: str) -> str:
    """One key as YAML, a level a line."""
    names = key.split(".")
    return (
        "".join(f"{'  ' * level}{name}:\n" for level, name in enumerate(names[:-1]))
        + f"{'  ' * (len(names) - 1)}{names[-1]}: {value}\n"
    )


def wrong_values() -> list[tuple[str, str]]:
    return [
        (key, value)
        for key, metadata in KEYS.items()
        for value in WRONG[metadata["kind"]]
        if not (metadata["many"] and value == "[]")
    ]


def misspelt(name: str, chance: Random) -> str:
    """A name with one letter lost, doubled, or exchanged with its neighbour."""
    at = chance.randrange(1, len(name) - 1)
    match chance.randrange(3):
        case 0:
            return name[:at] + name[at + 1 :]
        case 1:
            return name[:at] + name[at] + name[at:]
        case _:
            return name[: at - 1] + name[at] + name[at - 1] + name[at + 1 :]


def validate(tmp_path: Path, text: str | bytes) -> str:
    """Return what `ringtail validate` says about a broken file."""
    path = tmp_path / "broken.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    done = CliRunner().invoke(main, ["validate", "--settings-only", "--config", str(path)], env={"SECRET": SECRET})
    assert done.exit_code == 2, (text, done.output)
    assert isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    assert SECRET not in done.output
    *problems, last = done.stderr.splitlines()
    assert re.fullmatch(r"Error: \d+ mistakes? in the configuration; .*", last)
    assert problems
    for problem in problems:
        assert problem.isprintable()
        assert problem.startswith(f"{path}:"), problem
    return "\n".join(problems)


def test_there_are_enough() -> None:
    assert len(wrong_values()) + len(KEYS) + len(BROKEN) >= 150


@pytest.mark.parametrize(("key", "value"), wrong_values())
def test_a_wrong_value_is_told_with_file_line_and_key(tmp_path: Path, key: str, value: str) -> None:
    text = flat(key, value)
    told = validate(tmp_path, text)
    assert re.search(rf"broken\.yaml:{key.count('.') + 1}: {re.escape(key)}\b", told), told


@pytest.mark.parametrize("key", KEYS)
def test_a_misspelt_key_is_told_with_what_was_meant(tmp_path: Path, key: str) -> None:
    names = key.split(".")
    chance = Random(f"misspelt {key}")
    for level, name in enumerate(names):
        if len(name) < 4:
            continue
        wrong = misspelt(name, chance)
        if wrong == name:
            continue
        odd = ".".join([*names[:level], wrong, *names[level + 1 :]])
        told = validate(tmp_path, flat(odd, "x"))
        assert f"broken.yaml:{level + 1}: " in told
        assert wrong in told
        assert f"did you mean {name}?" in told, (wrong, told)


BROKEN: dict[str, str | bytes] = {
    "not UTF-8": b"wal:\n  sync: \xff\n",
    "NUL": "wal:\n  directory: a\0b\n",
    "control character": "wal:\n  directory: \x1b[31m\n",
    "tab": "wal:\n\tsync: never\n",
    "unclosed list": "wal: [\n",
    "unclosed map": "wal: {sync: never\n",
    "unclosed string": "wal:\n  directory: 'a\n",
    "a list": "- wal\n- api\n",
    "a word": "wal\n",
    "a number": "5\n",
    "an anchor": "wal: &a {sync: never}\n",
    "an alias": "wal: &a {}\napi: *a\n",
    "a merge key": "wal:\n  <<: {sync: never}\n",
    "a tag": "wal: !!python/object/apply:os.system [id]\n",
    "two documents": "wal: {}\n---\napi: {}\n",
    "twice": "wal: {}\nwal: {}\n",
    "twice inside": "wal:\n  sync: never\n  sync: always\n",
    "deep": "a: " * 50 + "b\n",
    "deep flow": "[" * 5000 + "]" * 5000 + "\n",
    "billion laughs": "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nwal: *c\n",
    "too large": "# " + "x" * (2 << 20) + "\n",
    "key is a list": "? [a]\n: b\n",
    "key is empty": "'': 1\n",
    "key with a line break": '"a\\nb": 1\n',
    "key with an escape": '"\\e[31mred": 1\n',
    "key reversed": "\u202elaw: 1\n",
    "null group": "stores: null\n",
    "text for a group": "stores: many\n",
    "list for a group": "stores: [traces]\n",
    "unknown variable": "wal:\n  directory: ${env:NOT_THERE}\n",
    "unknown reference": "wal:\n  directory: ${file:/etc/passwd}\n",
    "open reference": "wal:\n  directory: ${env:\n",
    "secret as a size": "wal:\n  segment_bytes: ${env:SECRET}\n",
    "secret as an address": "api:\n  endpoint: ${env:SECRET}\n",
    "secret as a choice": "wal:\n  sync: ${env:SECRET}\n",
    "secret as a duration": "query:\n  timeout: ${env:SECRET}\n",
    "same ports": "api:\n  endpoint: 127.0.0.1:4317\n",
    "retention below a segment": "wal:\n  retention:\n    max_bytes: 1MiB\n",
    "ring too small": "stores:\n  traces:\n    max_bytes: 1MiB\n    capacity: 100000000\n",
    "indentation": "wal:\n  sync: never\n directory: x\n",
    "colon": "wal: sync: never\n",
    "surrogate": "wal:\n  directory: \ud800\n",
    "bom inside": "wal:\n  sync: \ufeffnever\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_otherwise(tmp_path: Path, name: str) -> None:
    validate(tmp_path, BROKEN[name])


@pytest.mark.parametrize("seed", range(60))
def test_damaged_files_are_refused_or_mean_what_they_say(tmp_path: Path, seed: int) -> None:
    """Lines of the shipped file lost, doubled, moved, cut: settings that print as themselves, or mistakes."""
    chance = Random(f"damaged {seed}")
    lines = list(LINES)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        match chance.randrange(5):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2:
                lines[at] = " " + lines[at]
            case 3:
                lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
            case _:
                other = chance.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
    path = tmp_path / "damaged.yaml"
    path.write_text("\n".join(lines) + "\n")
    done = CliRunner().invoke(main, ["print-config", "--config", str(path)])
    assert "Traceback" not in done.output
    if done.exit_code == 0:
        config = load([("damaged.yaml", path.read_text())], [], {})
        assert load([("dumped.yaml", dump(config))], [], {}) == config
        assert yaml.safe_load(done.output)
    else:
        assert done.exit_code == 2
        assert f"{path}" in done.stderr


def test_the_daemon_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("wal:\n  sync: ${env:SECRET}\n  directry: x\n")
    done = subprocess.run(
        [*COMMAND, "run", "--config", str(path)],
        capture_output=True,
        text=True,
        env={**environment(), "SECRET": SECRET},
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 2
    assert "did you mean directory?" in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["broken.yaml"], "nothing was written"
