"""Loading settings: YAML files, `--set` options and environment variables into a `Config`, or every mistake in them.

Files merge key by key in their order, then the `--set` options. `${env:NAME}` and `${env:NAME:-default}` stand for
environment variables inside any value, `$$` for a dollar sign. Sizes are written like `64MiB` (or MB, GiB, …, or
a number of bytes), durations like `1m30s`.

The whole of every source is read before anything is refused, so that one run tells all mistakes, each with file,
line and key, and with what would be accepted.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import yaml

from collector.config import Config
from collector.errors import InvalidConfig

SOURCE_BYTES_MAX = 1024 * 1024
"""Bytes of one configuration file."""
NESTING_MAX = 20
"""Levels of one configuration file: more than any key has."""

_SIZES = {"": 1, "b": 1}
for _power, _prefix in enumerate("kmgt", 1):
    _SIZES |= {f"{_prefix}b": 1000**_power, f"{_prefix}ib": 1024**_power}
_DURATIONS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_VARIABLE = re.compile(r"\$\$|\$\{([^}]*)\}")
_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Found:
    """A value as written, and where."""

    text: str
    where: str


class _Loader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.problems: list[str] = []
        self.values: dict[str, _Found] = {}

    def source(self, name: str, text: str) -> None:
        """Take one YAML text; later ones win."""
        if len(text) > SOURCE_BYTES_MAX:
            self.problems.append(f"{name}: larger than {SOURCE_BYTES_MAX} bytes")
            return
        try:
            depth = 0
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                if isinstance(event, yaml.AliasEvent):
                    self.problems.append(f"{name}:{_line(event)}: aliases are not supported")
                    return
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > NESTING_MAX:
                    self.problems.append(f"{name}:{_line(event)}: nested more than {NESTING_MAX} deep")
                    return
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark is not None else ""
            self.problems.append(f"{name}{line}: not valid YAML: {getattr(error, 'problem', None) or error}")
            return
        if node is not None:
            self._section(Config, node, "", name)

    def _section(self, kind: type, node: yaml.Node, path: str, name: str) -> None:
        where = f"{name}:{node.start_mark.line + 1}"
        known = {one.name: one for one in fields(kind)}
        if not isinstance(node, yaml.MappingNode):
            if node.value not in ("", "null", "~"):
                accepted = ", ".join(known)
                self.problems.append(f"{where}: {path or 'the file'}: must be a mapping with the keys {accepted}")
            return
        seen = set()
        for key_node, value in node.value:
            key = str(key_node.value)
            full = f"{path}.{key}" if path else key
            place = f"{name}:{key_node.start_mark.line + 1}"
            if key in seen:
                self.problems.append(f"{place}: {full}: stands here twice")
            seen.add(key)
            if key not in known:
                close = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                accepted = ", ".join(known)
                self.problems.append(
                    f"{place}: {full}: unknown key{hint} Accepted here: {accepted}".replace("? A", "? A")
                )
                continue
            metadata = known[key].metadata
            if metadata["kind"] == "section":
                self._take_section(metadata, value, full, name)
            elif not isinstance(value, yaml.ScalarNode):
                self.problems.append(f"{place}: {full}: must be a single value ({_accepted(metadata)})")
            else:
                self.values[full] = _Found(value.value, place)

    def _take_section(self, metadata: Mapping[str, Any], value: yaml.Node, full: str, name: str) -> None:
        is_null = isinstance(value, yaml.ScalarNode) and value.value in ("null", "~")
        if is_null and metadata["optional"]:
            for inside in [key for key in self.values if key.startswith(f"{full}.")]:
                del self.values[inside]
            self.values[full] = _Found("null", f"{name}:{value.start_mark.line + 1}")
        else:
            self.values.pop(full, None)
            self._section(metadata["type"], value, full, name)

    def option(self, text: str) -> None:
        """Take one `a.b.c=VALUE`."""
        path, sign, value = text.partition("=")
        if not sign:
            self.problems.append(f"--set {text}: must be KEY=VALUE, as in --set wal.sync=never")
            return
        nested = value if value.strip() else "''"
        for key in reversed(path.split(".")):
            nested = f"{{{key}: {nested}}}"
        self.source(f"--set {path}", nested)

    def build(self, kind: type, path: str = "") -> Any:
        """Make a dataclass of what was found, and of defaults."""
        made: dict[str, Any] = {}
        for one in fields(kind):
            full = f"{path}.{one.name}" if path else one.name
            if one.metadata["kind"] == "section":
                switched_off = full in self.values
                made[one.name] = None if switched_off else self.build(one.metadata["type"], full)
            elif full in self.values:
                found = self.values[full]
                value = self._value(one.metadata, found, full)
                if value is not None:
                    made[one.name] = value
        return kind(**made)

    def _value(self, metadata: Mapping[str, Any], found: _Found, path: str) -> Any:
        try:
            text = self._expand(found.text)
            value = _PARSERS[metadata["kind"]](text, metadata)
            low, high = metadata["low"], metadata["high"]
            if (low is not None and value < low) or (high is not None and value > high):
                raise ValueError("out of range")
        except ValueError as error:
            detail = f" ({error})" if str(error) else ""
            self.problems.append(f"{found.where}: {path}: {found.text!r} is not {_accepted(metadata)}{detail}")
            return None
        return value

    def _expand(self, text: str) -> str:
        def replace(match: re.Match[str]) -> str:
            if match.group() == "$$":
                return "$"
            reference = _REFERENCE.fullmatch(match.group(1))
            if reference is None:
                raise ValueError("only ${env:NAME} and ${env:NAME:-default} can be referred to")
            name, default = reference.groups()
            value = self.environment.get(name, default)
            if value is None:
                raise ValueError(
                    f"the environment variable {name} is not set; ${{env:{name}:-default}} gives a default"
                )
            return value

        return _VARIABLE.sub(replace, text)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0


def _size(text: str, metadata: Mapping[str, Any]) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].lower() not in _SIZES:
        raise ValueError
    return (
        int(float(match[1]) * _SIZES[match[2].lower()]) if "." in match[1] else int(match[1]) * _SIZES[match[2].lower()]
    )


def _duration(text: str, metadata: Mapping[str, Any]) -> float:
    text = text.strip()
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError
    return sum(float(number) * _DURATIONS[unit] for number, unit in _DURATION_PART.findall(text))


def _count(text: str, metadata: Mapping[str, Any]) -> int:
    if not re.fullmatch(r"\d[\d_]*", text.strip()):
        raise ValueError
    return int(text)


def _address(text: str, metadata: Mapping[str, Any]) -> str:
    host, colon, port = text.rpartition(":")
    bare = host.strip("[]")
    if not colon or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        raise ValueError
    if not re.fullmatch(r"[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]", host) or (":" in bare and not host.startswith("[")):
        raise ValueError
    return text


def _path(text: str, metadata: Mapping[str, Any]) -> str:
    if not text or "\0" in text:
        raise ValueError
    return text


def _switch(text: str, metadata: Mapping[str, Any]) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _choice(text: str, metadata: Mapping[str, Any]) -> str:
    if text not in metadata["choices"]:
        raise ValueError
    return text


_PARSERS = {
    "size": _size,
    "duration": _duration,
    "count": _count,
    "address": _address,
    "path": _path,
    "switch": _switch,
    "choice": _choice,
}


def _accepted(metadata: Mapping[str, Any]) -> str:
    """Say in words what a key takes."""
    kind, low, high = metadata["kind"], metadata["low"], metadata["high"]
    words = {
        "size": "a size like 64MiB",
        "duration": "a duration like 30s or 1m30s",
        "count": "a whole number",
        "address": "an address like 127.0.0.1:4317, with a port from 0 to 65535",
        "path": "a path",
        "switch": "true or false",
        "choice": f"one of {', '.join(metadata['choices'])}",
    }[kind]
    show = {"size": size_text, "duration": duration_text}.get(kind, str)
    if low is not None and high is not None:
        return f"{words} from {show(low)} to {show(high)}"
    return f"{words} of at least {show(low)}" if low is not None else words


def size_text(value: float) -> str:
    """Write a size as it is read: in the largest binary unit that divides it."""
    amount = int(value)
    for unit, factor in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if amount and amount % factor == 0:
            return f"{amount // factor}{unit}"
    return str(amount)


def duration_text(seconds: float) -> str:
    """Write a duration as it is read."""
    if not seconds:
        return "0"
    milliseconds = seconds * 1000
    return f"{seconds:.15g}s" if milliseconds >= 1000 or milliseconds % 1 else f"{milliseconds:.0f}ms"


def load(sources: Sequence[tuple[str, str]], options: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Return the settings of YAML texts (name, text) and `--set` options; raise InvalidConfig with every mistake."""
    loader = _Loader(environment)
    for name, text in sources:
        loader.source(name, text)
    for option in options:
        loader.option(option)
    config: Config = loader.build(Config)
    if loader.problems:
        raise InvalidConfig(loader.problems)
    return config


def entries(kind: type = Config, path: str = "") -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield (key, metadata, default) of every section and setting, in order."""
    for one in fields(kind):
        full = f"{path}.{one.name}" if path else one.name
        if one.metadata["kind"] == "section":
            yield full, one.metadata, None
            yield from entries(one.metadata["type"], full)
        else:
            yield full, one.metadata, one.default


def dump(config: Config) -> str:
    """Write settings as YAML that loads to the same settings."""
    return yaml.safe_dump(_plain(config), sort_keys=False, default_flow_style=False)


def _plain(section: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for one in fields(section):
        value = getattr(section, one.name)
        kind = one.metadata["kind"]
        if is_dataclass(value):
            value = _plain(value)
        elif kind == "size":
            value = size_text(value)
        elif kind == "duration":
            value = duration_text(value)
        elif isinstance(value, str):
            value = value.replace("$", "$$")
        made[one.name] = value
    return made
