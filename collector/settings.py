"""Loading settings: YAML files, `--set` options and environment variables into a `Config`, or every mistake in them.

Files merge key by key in their order, then the `--set` options. `${env:NAME}` and `${env:NAME:-default}` stand for
environment variables inside any value (the default also when the variable is empty), `$$` for a dollar sign.
`quantities.py` says how values are written.

A group of keys may be empty: it then keeps its defaults, as in the Collector, where `grpc:` alone switches gRPC on.
`grpc: null` switches it off; a later source that names the group again switches it back on. A list is a whole: a
later one takes an earlier one's place. Where a list of values is expected, a single value is a list of one.

The whole of every source is read before anything is refused, so that one run tells all mistakes, each with file,
line and key, and with what would be accepted. Values are judged by the text that was written, not by what YAML
takes it for: `directory: no` is a directory named `no`. A message shows the text as written, never the contents
of a variable, and nothing of a secret.

Left out of YAML: aliases, merge keys, tags and several documents in one file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Final

import yaml

from collector.config import Config
from collector.declaration import Naming
from collector.errors import InvalidConfig
from collector.exporters.kinds import find, kind_of
from collector.exposure import conflicts, openings
from collector.otlp.signals import SIGNALS
from collector.quantities import accepted, read, split_address, write
from collector.ring.ring import bytes_min
from collector.security.hosts import is_loopback
from collector.security.secret import Secret

SOURCE_BYTES_MAX: Final = 1024 * 1024
"""Bytes of one configuration file."""
NESTING_MAX: Final = 20
"""Levels of one configuration file: more than any key has."""
SHOWN_MAX: Final = 60
"""Characters of an offending value that a message repeats."""
ITEMS_MAX: Final = 256
"""Elements of one list."""

_VARIABLE: Final = re.compile(r"\$\$|\$\{([^}]*)\}?")
_REFERENCE: Final = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?\}", re.DOTALL)
_SCHEME: Final = re.compile(r"[A-Za-z]+ ")
"""What a header's value may begin with, before a secret: `Bearer`."""
_HEADER: Final = {"kind": "header", "low": None, "high": None, "choices": ()}
_HEADER_VALUE: Final = {"kind": "header value", "low": None, "high": None, "choices": ()}
_SECRETS: Final = ("secret", "header value", "password")
_NAMED: Final = re.compile(r"[A-Za-z0-9_-]{1,64}(?:/[A-Za-z0-9_-]{1,64})?")
_NULL: Final = "tag:yaml.org,2002:null"
_EVERYWHERE: Final = ("", "0.0.0.0", "[::]")
_PIPELINES: Final = ("service", "processors", "connectors", "extensions")
"""Groups of a Collector's configuration that have no counterpart."""
_ALL_INTERFACES: Final = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class _Found:
    """A value, and where it was set: `file:line` or `--set`."""

    value: Any
    place: str


class _Loader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.problems: list[str] = []
        self.values: dict[str, _Found] = {}
        self.switched_off: set[str] = set()
        self.groups: dict[str, str] = {}
        """Groups whose names users have chosen: names by full keys, in the order in which they came."""
        self._source = ""

    def source(self, name: str, text: str) -> None:
        """Take one YAML text; later ones win."""
        self._source = name
        node = self._compose(text)
        if node is not None:
            self._section(Config, node, "")

    def option(self, text: str) -> None:
        """Take one `a.b.c=VALUE`; a single value needs no quoting, whatever YAML would take it for."""
        self._source = "--set"
        path, sign, value = text.partition("=")
        if not sign:
            self.problems.append(f"--set {_shown(text)}: must be KEY=VALUE, as in --set wal.sync=never")
            return
        metadata = _declared(path)
        is_collection = metadata.get("kind") in ("section", "sections") or metadata.get("many")
        is_null = value == "null" and metadata.get("optional")
        node: yaml.Node = yaml.ScalarNode(_NULL if is_null else "tag:yaml.org,2002:str", value)
        if is_collection or value.startswith(("'", '"')):
            known_problems = len(self.problems)
            node = self._compose(value) or yaml.ScalarNode(_NULL, "")
            if len(self.problems) > known_problems:
                return
        for key in reversed(path.split(".")):
            node = yaml.MappingNode("", [(yaml.ScalarNode("", key), node)])
        self._section(Config, node, "")

    def _compose(self, text: str) -> yaml.Node | None:
        """Read YAML, within the limits; None when it is empty, or wrong and reported."""
        if len(text) > SOURCE_BYTES_MAX:
            self.problems.append(f"{self._source}: is larger than {SOURCE_BYTES_MAX} bytes")
            return None
        try:
            depth = documents = 0
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                refused = ""
                documents += isinstance(event, yaml.DocumentStartEvent)
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                    refused = "anchors and aliases are not supported"
                elif getattr(event, "tag", None) not in (None, "!"):
                    refused = "tags are not supported"
                elif depth > NESTING_MAX:
                    refused = f"nested more than {NESTING_MAX} deep"
                elif documents > 1:
                    refused = "a second document begins; put it into a file of its own"
                if refused:
                    self.problems.append(f"{self._place(event)}: {refused}")
                    return None
            composed: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            self.problems.append(self._not_yaml(error, text))
            return None
        return composed

    def _not_yaml(self, error: yaml.YAMLError, text: str) -> str:
        if isinstance(error, yaml.reader.ReaderError):
            line = text.count("\n", 0, error.position) + 1
            return f"{self._source}:{line}: not valid YAML: the character {text[error.position]!r} is not allowed"
        mark = getattr(error, "problem_mark", None)
        place = f"{self._source}:{mark.line + 1}" if mark is not None else self._source
        return f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}"

    def _place(self, node: Any) -> str:
        mark = getattr(node, "start_mark", None)
        return f"{self._source}:{mark.line + 1}" if mark is not None and self._source != "--set" else self._source

    def _section(self, kind: type, node: yaml.Node, path: str) -> None:
        """Take the keys of one group."""
        known = {one.name: one.metadata for one in fields(kind)}
        if not isinstance(node, yaml.MappingNode):
            is_empty = isinstance(node, yaml.ScalarNode) and node.tag == _NULL and not node.value
            if not is_empty:
                self.problems.append(
                    f"{self._place(node)}: {path or 'the file'}: must be a mapping with the keys {', '.join(known)}"
                )
            return
        first_places: dict[str, str] = {}
        for key_node, value in node.value:
            place = self._place(key_node)
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            full = f"{path}.{key}" if path else key
            if key in first_places:
                self.problems.append(
                    f"{place}: {_shown(full, SHOWN_MAX + len(path))}: stands here twice, first at {first_places[key]}"
                )
            first_places.setdefault(key, place)
            if key not in known:
                self.problems.append(f"{place}: {_shown(full, SHOWN_MAX + len(path))}: {_unknown(key, list(known))}")
            elif known[key]["kind"] == "section":
                self._subsection(known[key], value, full, place)
            elif known[key]["kind"] == "sections":
                self._sections(known[key], value, full, place)
            elif known[key]["kind"] == "named":
                self._named(known[key], value, full, place)
            elif known[key]["kind"] == "headers":
                self._headers(value, full, place)
            elif known[key]["many"]:
                self._list(known[key], value, full, place)
            elif not isinstance(value, yaml.ScalarNode):
                self.problems.append(f"{place}: {full}: must be a single value, {accepted(known[key])}")
            elif known[key]["optional"] and value.tag == _NULL and value.value:
                self.values[full] = _Found(None, place)
            elif value.tag == _NULL or not value.value:
                self.problems.append(f"{place}: {full}: has no value; it takes {accepted(known[key])}")
            else:
                self._take(known[key], value.value, full, place)

    def _take(self, metadata: Mapping[str, Any], text: str, full: str, place: str) -> None:
        found = self._read(metadata, text, full, place)
        if found is not None:
            self.values[full] = found

    def _read(self, metadata: Mapping[str, Any], text: str, full: str, place: str) -> _Found | None:
        """Read one value; None when it is not accepted, which is reported."""
        is_secret = metadata["kind"] in _SECRETS
        try:
            value = read(metadata, self._expand(text))
        except ValueError as error:
            detail = f" ({error})" if str(error) else ""
            shown = "this" if is_secret else _shown(text)
            self.problems.append(f"{place}: {full}: {shown} is not {accepted(metadata)}{detail}")
            return None
        if is_secret:
            scheme = _SCHEME.match(text) if metadata["kind"] == "header value" else None
            reference = _REFERENCE.fullmatch(text, scheme.end() if scheme is not None else 0)
            value = Secret(value.reveal(), text if reference is not None and reference[2] is None else "")
        return _Found(value, place)

    def _list(self, metadata: Mapping[str, Any], value: yaml.Node, full: str, place: str) -> None:
        """Take a list of values, or one value that stands for it."""
        nodes = self._items(value, full, place, f"a list, each {accepted(metadata)}")
        found = []
        for i, node in enumerate(nodes):
            if not isinstance(node, yaml.ScalarNode) or not node.value:
                self.problems.append(f"{self._place(node)}: {full}[{i}]: must be {accepted(metadata)}")
            else:
                found.append(self._read(metadata, node.value, f"{full}[{i}]", self._place(node)))
        if isinstance(value, yaml.SequenceNode) or found:
            self.values[full] = _Found(tuple(one.value for one in found if one is not None), place)

    def _sections(self, metadata: Mapping[str, Any], value: yaml.Node, full: str, place: str) -> None:
        """Take a list of groups of keys."""
        keys = ", ".join(one.name for one in fields(metadata["type"]))
        nodes = self._items(value, full, place, f"a list of groups with the keys {keys}")
        self.values = {key: found for key, found in self.values.items() if not key.startswith(f"{full}[")}
        for i, node in enumerate(nodes):
            item, at = f"{full}[{i}]", self._place(node)
            if not isinstance(node, yaml.MappingNode):
                self.problems.append(f"{at}: {item}: must be a group with the keys {keys}")
                continue
            self._section(metadata["type"], node, item)
            given = {key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
            for one in fields(metadata["type"]):
                if one.default is MISSING and one.default_factory is MISSING and one.name not in given:
                    self.problems.append(f"{at}: {item}: has no {one.name}, which is {accepted(one.metadata)}")
        self.values[full] = _Found(len(nodes), place)

    def _named(self, metadata: Mapping[str, Any], value: yaml.Node, full: str, place: str) -> None:
        """Take groups by names that the user has chosen; a group that is null is none."""
        naming: Naming = metadata["type"]
        if not isinstance(value, yaml.MappingNode):
            if not isinstance(value, yaml.ScalarNode) or value.value:
                known = ", ".join(naming.known())
                self.problems.append(
                    f"{place}: {full}: must be a mapping of groups, each named one of {known}, or such a name and /ID"
                )
            return
        names: dict[str, str] = {}
        for key_node, group in value.value:
            at = self._place(key_node)
            name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            item = f"{full}.{name}"
            if name in names:
                self.problems.append(
                    f"{at}: {_shown(item, SHOWN_MAX + len(full))}: stands here twice, first at {names[name]}"
                )
            names.setdefault(name, at)
            try:
                kind = naming.find(name) if _NAMED.fullmatch(name) else None
            except InvalidConfig as error:
                self.problems += [f"{at}: {problem}" for problem in error.problems]
                continue
            if kind is None:
                shown = _shown(item, SHOWN_MAX + len(full))
                self.problems.append(
                    f"{at}: {shown}: {_unknown(name.partition('/')[0], naming.known())}; each may have /ID behind it"
                )
                continue
            is_null = isinstance(group, yaml.ScalarNode) and group.tag == _NULL and group.value
            if is_null:
                self.groups.pop(item, None)
                self.values = {key: found for key, found in self.values.items() if not key.startswith(f"{item}.")}
            else:
                self.groups[item] = name
                self._section(kind, group, item)

    def _headers(self, value: yaml.Node, full: str, place: str) -> None:
        """Take a mapping from headers to values."""
        pairs = value.value if isinstance(value, yaml.MappingNode) else []
        if not isinstance(value, yaml.MappingNode) or len(pairs) > ITEMS_MAX:
            self.problems.append(f"{place}: {full}: must be a mapping from at most {ITEMS_MAX} headers to values")
            return
        found: dict[str, Any] = {}
        for key_node, one in pairs:
            at = self._place(key_node)
            name = self._read(_HEADER, getattr(key_node, "value", ""), full, at)
            if name is None or name.value == "*" or not isinstance(one, yaml.ScalarNode):
                self.problems.append(f"{at}: {full}: must be a mapping from headers to values, which are texts")
                continue
            read_value = self._read(_HEADER_VALUE, one.value, f"{full}.{name.value}", at)
            if read_value is not None:
                found[name.value] = read_value.value
        self.values[full] = _Found(found, place)

    def _items(self, value: yaml.Node, full: str, place: str, wanted: str) -> list[yaml.Node]:
        if isinstance(value, yaml.ScalarNode) and value.tag != _NULL and value.value:
            return [value]
        if not isinstance(value, yaml.SequenceNode):
            self.problems.append(f"{place}: {full}: must be {wanted}; [] is an empty one")
            return []
        if len(value.value) > ITEMS_MAX:
            self.problems.append(f"{place}: {full}: has more than {ITEMS_MAX} elements")
            return []
        return list(value.value)

    def _subsection(self, metadata: Mapping[str, Any], value: yaml.Node, full: str, place: str) -> None:
        is_null = isinstance(value, yaml.ScalarNode) and value.tag == _NULL and value.value
        if not is_null:
            self.switched_off.discard(full)
            self._section(metadata["type"], value, full)
        elif metadata["optional"]:
            self.switched_off.add(full)
            self.values = {key: found for key, found in self.values.items() if not key.startswith(f"{full}.")}
        else:
            self.problems.append(f"{place}: {full}: cannot be null; leave it out to keep its defaults")

    def build(self, kind: type, path: str = "") -> Any:
        """Make a dataclass of what was found, and of defaults."""
        made: dict[str, Any] = {}
        for one in fields(kind):
            full = f"{path}.{one.name}" if path else one.name
            if one.metadata["kind"] == "section":
                made[one.name] = None if full in self.switched_off else self.build(one.metadata["type"], full)
            elif one.metadata["kind"] == "sections":
                count = self.values[full].value if full in self.values else 0
                made[one.name] = tuple(self.build(one.metadata["type"], f"{full}[{i}]") for i in range(count))
            elif one.metadata["kind"] == "named":
                find, groups = one.metadata["type"].find, self.groups.items()
                made[one.name] = {name: self.build(find(name), key) for key, name in groups if key == f"{full}.{name}"}
            elif full in self.values:
                made[one.name] = self.values[full].value
        return kind(**made)

    def _expand(self, text: str) -> str:
        def replace(match: re.Match[str]) -> str:
            if match.group() == "$$":
                return "$"
            reference = _REFERENCE.fullmatch(match.group())
            if reference is None:
                raise ValueError("only ${env:NAME} and ${env:NAME:-default} can be referred to")
            name, default = reference.groups()
            value = self.environment.get(name) or default
            if not value:
                raise ValueError(f"the environment variable {name} is not set; ${{env:{name}:-…}} gives a default")
            return value

        return _VARIABLE.sub(replace, text)

    def conflicts(self, config: Config) -> None:
        """Report settings that are well by themselves and not together."""
        listening: dict[str, str] = {}
        for opening in openings(config):
            key = f"{opening.key}.endpoint"
            for other, taken in listening.items():
                if _collide(opening.endpoint, taken):
                    self.problems.append(f"{self._told(key, other)}: {opening.endpoint} is taken already, by {other}")
            listening[key] = opening.endpoint
        self.problems += [f"{self._told(key)}: {message}" for key, message in conflicts(config)]
        retention, segment = config.wal.retention.max_bytes, config.wal.segment_bytes
        if 0 < retention < segment:
            self.problems.append(
                f"{self._told('wal.retention.max_bytes', 'wal.segment_bytes')}: must be at least wal.segment_bytes "
                f"({write({'kind': 'size'}, segment)}): whole segments are removed"
            )

        self._paths(config)
        self._backend(config)
        for name, exporter in config.exporters.items():
            kind = find(kind_of(name))
            if kind is None:
                continue
            problems = list(kind.problems(exporter)) or _loops(config, kind.otlp_servers(exporter))
            self.problems += [f"{self._told(f'exporters.{name}.{key}')}: {problem}" for key, problem in problems]
        for name in ("grpc", "http"):
            group = getattr(config.receivers.otlp.protocols, name)
            if group is not None and group.include_metadata:
                key = f"receivers.otlp.protocols.{name}.include_metadata"
                self.problems.append(
                    f"{self._told(key)}: must be false: nothing here reads the metadata of requests, which are not "
                    "forwarded; tenants.enabled reads X-Scope-OrgID without it"
                )
        for signal in SIGNALS:
            ring = getattr(config.stores, signal.name)
            least = bytes_min(signal, ring.capacity)
            if ring.max_bytes < least:
                bytes_key, capacity_key = f"stores.{signal.name}.max_bytes", f"stores.{signal.name}.capacity"
                self.problems.append(
                    f"{self._told(bytes_key, capacity_key)}: a ring of {ring.capacity} records wants at least "
                    f"{least} bytes, half of them for its indexes"
                )

    def _backend(self, config: Config) -> None:
        """Report a backend to read from that is none."""
        name = config.query.backend
        if name is None:
            return
        if name not in config.exporters:
            known = ", ".join(config.exporters) or "none"
            self.problems.append(
                f"{self._told('query.backend')}: there is no {name!r} under exporters; there is {known}"
            )
        elif (kind := find(kind_of(name))) is not None and not kind.reads:
            self.problems.append(f"{self._told('query.backend')}: {name} is no backend; nothing can be read from it")

    def _paths(self, config: Config) -> None:
        """Report signals that are received at one path, or where the listener greets."""
        http = config.receivers.otlp.protocols.http
        taken = {"/": "the greeting"}
        for signal in SIGNALS if http is not None else ():
            key = f"receivers.otlp.protocols.http.{signal.name}_url_path"
            path = getattr(http, f"{signal.name}_url_path")
            if path in taken:
                self.problems.append(f"{self._told(key, taken[path])}: {path} is taken already, by {taken[path]}")
            taken.setdefault(path, key)

    def _told(self, key: str, *related: str) -> str:
        """Where a key was set, or one that it stands against, and the key."""
        for one in (key, *related):
            if one in self.values:
                return f"{self.values[one].place}: {key}"
        return key


def _collide(one: str, other: str) -> bool:
    """Tell whether two addresses cannot both be listened on."""
    host, _, port = one.rpartition(":")
    other_host, _, other_port = other.rpartition(":")
    return int(port) == int(other_port) != 0 and (
        host == other_host or host in _EVERYWHERE or other_host in _EVERYWHERE
    )


def _loops(config: Config, servers: Iterable[tuple[str, str, int]]) -> list[tuple[str, str]]:
    """Tell of which keys of an exporter what is sent would come back here, and go out again, without an end."""
    receivers = [one for one in openings(config) if one.name.startswith("otlp/")]
    found = {}
    for key, host, port in servers:
        for receiver in receivers:
            here, at = split_address(receiver.endpoint)
            same = host == here or ("localhost" in (host, here) and is_loopback(host) and is_loopback(here))
            if port == at and (same or (here in _ALL_INTERFACES and is_loopback(host))):
                found[key] = (
                    f"{host}:{port} is {receiver.key}.endpoint: what is received would be sent here without end"
                )
    return list(found.items())


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    if key in _PIPELINES:
        hint = "leave it out: there are no pipelines, all that is received is stored, and sent to every exporter; "
    return f"unknown key; {hint}accepted here: {', '.join(known)}"


def _shown(text: str, most: int = SHOWN_MAX) -> str:
    """Repeat what was written on one line, not at any length."""
    return repr(text if len(text) <= most else text[: most - 1] + "…")


def load(sources: Sequence[tuple[str, str]], options: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Return the settings of YAML texts (name, text) and `--set` options; raise InvalidConfig with every mistake."""
    return _load(sources, options, environment, [])


def load_files(paths: Sequence[str], options: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Return the settings of YAML files and `--set` options; raise InvalidConfig with every mistake."""
    sources: list[tuple[str, str]] = []
    problems: list[str] = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                sources.append((path, file.read(SOURCE_BYTES_MAX + 1).decode("utf-8-sig")))
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            problems.append(f"{path}: is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}")
    return _load(sources, options, environment, problems)


def _load(
    sources: Sequence[tuple[str, str]], options: Sequence[str], environment: Mapping[str, str], problems: list[str]
) -> Config:
    loader = _Loader(environment)
    loader.problems += problems
    for name, text in sources:
        loader.source(name, text)
    for option in options:
        loader.option(option)
    if not loader.problems:
        config: Config = loader.build(Config)
        loader.conflicts(config)
        if not loader.problems:
            return config
    raise InvalidConfig(loader.problems)


def entries(kind: type = Config, path: str = "") -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield (key, metadata, default) of every section and setting, in order.

    The keys of a list of sections are those of one: `auth.credentials[].name`; of groups that users name, those that all
    share are of `NAME`, and the others of each kind's name. MISSING is the default of one that must be given.
    """
    for one in fields(kind):
        full = f"{path}.{one.name}" if path else one.name
        if one.metadata["kind"] == "section":
            yield full, one.metadata, None
            yield from entries(one.metadata["type"], full)
        elif one.metadata["kind"] == "sections":
            yield full, one.metadata, one.default
            yield from entries(one.metadata["type"], f"{full}[]")
        elif one.metadata["kind"] == "named":
            yield full, one.metadata, None
            yield from _named_entries(one.metadata["type"], full)
        else:
            yield (
                full,
                one.metadata,
                one.default_factory() if one.default is MISSING and callable(one.default_factory) else one.default,
            )


def _named_entries(naming: Naming, path: str) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    shared = {one.name for one in fields(naming.shared)}
    yield from entries(naming.shared, f"{path}.NAME")
    for name in naming.documented:
        kind = naming.find(name)
        for key, metadata, default in entries(kind, f"{path}.{name}") if kind is not None else ():
            if key.split(".")[2] not in shared:
                yield key, metadata, default


def _declared(path: str) -> Mapping[str, Any]:
    """Return how a key is declared; nothing when it is not."""
    kind: Any = Config
    found: Mapping[str, Any] = {}
    for name in path.split("."):
        if isinstance(kind, Naming):
            try:
                kind = kind.find(name)
            except InvalidConfig:
                kind = None
            found = {"kind": "section"}
        else:
            found = next((one.metadata for one in fields(kind) if one.name == name), {}) if kind is not None else {}
            kind = found.get("type")
        if kind is None:
            break
    return found


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the keys that have other values in another Config, in order; a switched-off group counts as one key."""
    found: list[str] = []
    for one in fields(old):
        full = f"{path}.{one.name}" if path else one.name
        before, after = getattr(old, one.name), getattr(new, one.name)
        if is_dataclass(before) and is_dataclass(after):
            found += differences(before, after, full)
        elif one.metadata["kind"] == "named" and before != after:
            for name in sorted({*before, *after}):
                if type(before.get(name)) is type(after.get(name)):
                    found += differences(before[name], after[name], f"{full}.{name}")
                else:
                    found.append(f"{full}.{name}")
        elif before != after:
            found.append(full)
    return found


def dump(config: Config) -> str:
    """Write settings as YAML that loads to the same settings.

    Secrets are left out of it: those that were written as `${env:NAME}` are that, and others do not load again.
    """
    text: str = yaml.safe_dump(_plain(config), sort_keys=False, default_flow_style=False, allow_unicode=True)
    return text


def _plain(section: Any) -> dict[str, Any]:
    return {one.name: _plain_value(one.metadata, getattr(section, one.name)) for one in fields(section)}


def _plain_value(metadata: Mapping[str, Any], value: Any) -> Any:
    if is_dataclass(value):
        return _plain(value)
    if isinstance(value, Mapping):
        return {name: _plain_value(metadata, one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [_plain_value(metadata, one) for one in value]
    if isinstance(value, Secret):
        return value.shown
    if metadata["kind"] in ("size", "duration", "number"):
        return write(metadata, value)
    return value.replace("$", "$$") if isinstance(value, str) else value
