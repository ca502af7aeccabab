"""`make sbom`: what the container image holds beside Python, as CycloneDX 1.6: the packages of deploy/requirements.txt.

Licenses and who needs whom are read from the packages that are installed here, in the same versions.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from collector import __version__

ROOT = Path(__file__).parents[2]
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) \\((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def normal(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, tuple[str, list[str]]]:
    """Return version and hashes of each package of a file with hashes."""
    return {
        normal(name): (version, re.findall(r"sha256:([0-9a-f]{64})", hashes))
        for name, version, hashes in _PIN.findall(text)
    }


def needs(name: str) -> list[str]:
    """Return the names of what a package needs, without extras; none for one that is not installed."""
    try:
        required = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = (_NAME.match(one) for one in required if "extra ==" not in one)
    return sorted({normal(match[0]) for match in found if match})


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
    direct = {normal(match[0]) for one in project["dependencies"] if (match := _NAME.match(one))}
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
        {"ref": urls[name], "dependsOn": [urls[one] for one in needs(name) if one in urls]} for name in sorted(pinned)
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
