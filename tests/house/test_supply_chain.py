"""S19: what the image installs is pinned by hash, in the versions that these tests run with, and told in a bill."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

from collector import __version__
from tests.house.lock import FILES, ROOT, wanted
from tests.house.sbom import bill, extras, names, needs, normal, pins


@pytest.mark.parametrize("file", FILES)
def test_everything_is_pinned_by_hash(file: str) -> None:
    text = (ROOT / "deploy" / file).read_text()
    pinned = pins(text)
    assert len(pinned) == len(re.findall(r"^\w", text, re.MULTILINE)), "every line that names a package was understood"
    assert names(wanted()[file]) <= pinned.keys(), "make lock"
    for name, (_, hashes) in pinned.items():
        assert hashes, name
        missing = {one for one in needs(name, extras(wanted()[file]).get(name, ())) if one not in pinned}
        assert missing <= {"async-timeout", "colorama", "importlib-metadata", "tzdata", "exceptiongroup"}, (
            "of other systems, and older Pythons"
        )
    assert "://" not in text
    assert "--index" not in text


def test_the_versions_are_those_that_are_tested() -> None:
    """A version that is not is a matter for `make lock`; who installed others by hand is not told off."""
    pinned = pins((ROOT / "deploy" / "requirements.txt").read_text())
    for one in wanted()["requirements.txt"]:
        name, _, least = one.partition(">=")
        version = pinned[normal(name.partition("[")[0])][0]
        assert [int(part) for part in version.split(".")[:2]] >= [int(part) for part in least.split(".")[:2]], one
    installed = {name: importlib.metadata.version(name) for name in names(wanted()["requirements.txt"])}
    assert installed.keys() <= pinned.keys()


def test_the_image_fetches_nothing_else() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    installs = re.findall(r"^RUN \S+/pip .*?(?:install|wheel) (.*)$", dockerfile, re.MULTILINE)
    assert len(installs) == 4
    for arguments in installs:
        assert "--no-deps" in arguments
        assert "--require-hashes" in arguments or "--no-index" in arguments or "--no-build-isolation" in arguments


def test_the_bill_of_materials() -> None:
    made = bill()
    pinned = pins((ROOT / "deploy" / "requirements.txt").read_text())
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    assert made["metadata"]["component"]["version"] == __version__
    assert {one["name"]: one["version"] for one in made["components"]} == {
        name: version for name, (version, _) in pinned.items()
    }
    known = {one["bom-ref"] for one in [*made["components"], made["metadata"]["component"]]}
    assert {one["ref"] for one in made["dependencies"]} == known
    reached = {made["metadata"]["component"]["bom-ref"]}
    edges = {one["ref"]: one["dependsOn"] for one in made["dependencies"]}
    for _ in known:
        reached |= {target for one in reached for target in edges[one]}
    assert {one for one in known - reached if "typing-extensions" not in one} == set(), "nobody needs it"
    assert all(
        "licenses" in one for one in made["components"] if Path(one["name"]).name in {"click", "numpy", "uvloop"}
    )


def test_security_md_says_how_to_report() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    for part in ("Supported versions", "Reporting a vulnerability", "90 days"):
        assert part in text
