"""`make sbom`: what the container image holds beside Python, as CycloneDX 1.6: the packages of deploy/requirements.txt.

Licenses and who needs whom are read from the packages that are installed here, in the same versions.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tomllib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from collector import __version__
from tests.house.lock import wanted

ROOT = Path(__file__).parents[2]
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) \\((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRAS = re.compile(r"[A-Za-z0-9._-]+ ?\[([^]]*)\]")


def normal(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, tuple[str, list[str]]]:
    """Return version and hashes of each package of a file with hashes."""
    return {
        normal(name): (version, re.findall(r"sha256:([0-9a-f]{64})", hashes))
        for name, version, hashes in _PIN.findall(text)
    }


def names(requirements: Iterable[str]) -> set[str]:
    """Return the names of the packages that requirements are of."""
    return {normal(match[0]) for one in requirements if (match := _NAME.match(one))}


def extras(requirements: Iterable[str]) -> dict[str, set[str]]:
    """Return the extras that requirements ask for, by packages' names: of `psycopg[binary]>=3` {"psycopg": {"binary"}}."""
    found = ((one, _EXTRAS.match(one)) for one in requirements)
    return {min(names([one])): set(match[1].replace(" ", "").split(",")) for one, match in found if match}


def needs(name: str, with_extras: Collection[str] = ()) -> list[str]:
    """Return the names of what a package needs, with these of its extras; none for one that is not installed."""
    try:
        required = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    conditions = ((one, re.search(r"extra == ['\"]([^'\"]+)", one)) for one in required)
    return sorted(names(one for one, extra in conditions if extra is None or extra[1] in with_extras))


def licenses(name: str) -> list[dict[str, Any]]:
    """Return a package's license as CycloneDX says it."""
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return []
    expression = metadata.get("License-Expression")
    if expression:
        return [{"expression": expression}]
    names = [one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier") or [] if one.startswith("License ::")]
    return [{"license": {"name": one}} for one in names]


def bill() -> dict[str, Any]:
    """Return the bill of materials."""
    pinned = pins((ROOT / "deploy" / "requirements.txt").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = f"pkg:pypi/{normal(project['name'])}@{__version__}"
    urls = {name: f"pkg:pypi/{name}@{version}" for name, (version, _) in pinned.items()}
    asked = wanted()["requirements.txt"]
    direct, chosen = names(asked), extras(asked)
    components = [
        {
            "type": "library",
            "bom-ref": urls[name],
            "name": name,
            "version": version,
            "purl": urls[name],
            **({"licenses": found} if (found := licenses(name)) else {}),
        }
        for name, (version, _) in sorted(pinned.items())
    ]
    dependencies = [{"ref": own, "dependsOn": sorted(urls[name] for name in direct)}]
    dependencies += [
        {"ref": urls[name], "dependsOn": [urls[one] for one in needs(name, chosen.get(name, ())) if one in urls]}
        for name in sorted(pinned)
    ]
    subject = {
        "type": "application",
        "bom-ref": own,
        "name": normal(project["name"]),
        "version": __version__,
        "purl": own,
        "licenses": [{"expression": project["license"]}],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": dependencies,
    }


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=2)
