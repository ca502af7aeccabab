"""Templates of `line_format` and `label_format`: compiled once, executed for a line.

A template sees a line's labels as fields of the dot; a label that is absent is empty. `__line__` is the line and
`__timestamp__` its time. What it can use is in `template_functions.py`, its syntax in `template_syntax.py`.

Executing is bounded: `STEPS_MAX` nodes and calls, and texts of `VALUE_BYTES_MAX` characters. What goes wrong raises
`TemplateFailure`, whose words are Go's and become `__error_details__`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from collector.query.logql.template_functions import Function, functions
from collector.query.logql.template_syntax import (
    Action,
    Block,
    Command,
    Jump,
    Literal,
    Name,
    Node,
    Operand,
    Path,
    Pipe,
    TemplateError,
    Text,
    parse_template,
    place,
)
from collector.query.logql.template_values import (
    VALUE_BYTES_MAX,
    CallError,
    Int64,
    LabelMap,
    bounded,
    is_true,
    shown,
    type_name,
)
from collector.query.logql.time_layout import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ("Template", "TemplateError", "TemplateFailure")

STEPS_MAX: Final = 10_000
"""Nodes, calls and turns of loops that one line may take."""

_LINE, _TIMESTAMP = "__line__", "__timestamp__"
_LOGICAL = ("and", "or")
_TYPES: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "s": ((str,), "string"),
    "i": ((int,), "int"),
    "f": ((float,), "float64"),
    "t": ((Moment,), "time.Time"),
}


class TemplateFailure(Exception):
    """A template could not be executed for a line."""


class _Jumped(Exception):
    """A `break` or a `continue` on its way to its `range`."""


class Template:
    """A template, ready to be executed."""

    def __init__(self, text: str, kind: str, now_ns: Callable[[], int]) -> None:
        """Read a template; `kind` is what messages call it, `line` or `label`. Raises TemplateError."""
        self._text = text
        self._kind = kind
        self._functions = functions(now_ns)
        self._nodes = parse_template(text, {*self._functions, *_LOGICAL, _LINE, _TIMESTAMP})
        found = _Uses()
        found.nodes(self._nodes, at_root=True)
        self.labels: frozenset[str] | None = None if found.everything else frozenset(found.labels)
        """The labels that it can look at; None: any."""
        self.uses_line = _LINE in found.names
        """Whether it looks at the line."""
        self.uses_time = _TIMESTAMP in found.names
        """Whether it looks at the line's time."""

    def render(self, labels: Mapping[str, str], line: str = "", time_ns: int = 0) -> str:
        """Return what the template makes of a line. Raises TemplateFailure."""
        return _Execution(self, labels, line, time_ns).run()

    def failure(self, node: object, at: int, message: str) -> TemplateFailure:
        """Return the failure at a node of the template."""
        context = str(node)
        context = context if len(context) <= 20 else context[:20] + "..."
        where = (
            f"template: {self._kind}:{place(self._text, at)}: executing {chr(34)}{self._kind}{chr(34)} at <{context}>"
        )
        return TemplateFailure(f"{where}: {message}")

    def function(self, name: str) -> Function:
        """Return one of the functions."""
        return self._functions[name]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The tree."""
        return self._nodes


class _Uses:
    """What a template looks at."""

    def __init__(self) -> None:
        self.labels: set[str] = set()
        self.names: set[str] = set()
        self.everything = False

    def nodes(self, nodes: Iterable[Node], *, at_root: bool) -> None:
        for node in nodes:
            if isinstance(node, Action):
                self._pipe(node.pipe, at_root=at_root)
            elif isinstance(node, Block):
                self._pipe(node.pipe, at_root=at_root)
                self.nodes(node.body, at_root=at_root and node.word == "if")
                self.nodes(node.otherwise, at_root=at_root)

    def _pipe(self, pipe: Pipe, *, at_root: bool) -> None:
        for command in pipe.commands:
            for operand in command.operands:
                if isinstance(operand, Name):
                    self.names.add(operand.name)
                elif isinstance(operand, Path):
                    self._path(operand, at_root=at_root)

    def _path(self, path: Path, *, at_root: bool) -> None:
        if isinstance(path.root, Pipe):
            self._pipe(path.root, at_root=at_root)
        elif path.root is None or path.root == "$":
            if path.fields:
                self.labels.add(path.fields[0])
            elif at_root or path.root == "$":
                self.everything = True


class _Execution:
    """One line's way through a template."""

    def __init__(self, template: Template, labels: Mapping[str, str], line: str, time_ns: int) -> None:
        self._template = template
        self._labels = LabelMap(labels)
        self._line = line
        self._time_ns = time_ns
        self._out: list[str] = []
        self._size = 0
        self._steps = 0
        self._variables: list[tuple[str, Any]] = [("$", self._labels)]

    def run(self) -> str:
        self._run(self._template.nodes, self._labels)
        return "".join(self._out)

    def _step(self, node: object, at: int) -> None:
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise self._template.failure(node, at, f"the template takes more than {STEPS_MAX} steps")

    def _put(self, text: str, node: object, at: int) -> None:
        self._size += len(text)
        if self._size > VALUE_BYTES_MAX:
            raise self._template.failure(
                node, at, f"the template makes a text of more than {VALUE_BYTES_MAX} characters"
            )
        self._out.append(text)

    def _run(self, nodes: tuple[Node, ...], dot: Any) -> None:
        """Run nodes. As deep as the parser allows."""
        for node in nodes:
            match node:
                case Text():
                    self._put(node.text, "text", 0)
                case Action():
                    value = self._pipe(node.pipe, dot)
                    if not node.pipe.variables:
                        self._put(shown(value), node.pipe, node.pipe.at)
                case Block():
                    known = len(self._variables)
                    self._block(node, dot)
                    del self._variables[known:]
                case Jump():
                    raise _Jumped(node.word)

    def _block(self, node: Block, dot: Any) -> None:
        if node.word == "range":
            self._range(node, dot)
            return
        value = self._pipe(node.pipe, dot)
        if is_true(value):
            self._run(node.body, value if node.word == "with" else dot)
        else:
            self._run(node.otherwise, dot)

    def _range(self, node: Block, dot: Any) -> None:
        value = self._pipe(node.pipe, dot, declares=False)
        if isinstance(value, bool | float | str | Moment):
            raise self._template.failure(node.pipe, node.pipe.at, f"range can't iterate over {shown(value)}")
        if isinstance(value, int):
            items: Iterable[tuple[Any, Any]] = ((each, each) for each in range(value))
        elif isinstance(value, list):
            items = enumerate(value)
        else:
            items = () if value is None else sorted(value.items())
        turned = False
        known = len(self._variables)
        for key, item in items:
            turned = True
            self._step(node.pipe, node.pipe.at)
            names = node.pipe.variables
            pairs = zip(names, (item,) if len(names) < 2 else (key, item), strict=False)
            for name, each in pairs:
                self._assign(name, each, declares=node.pipe.declares)
            try:
                self._run(node.body, item)
            except _Jumped as jump:
                if jump.args[0] == "break":
                    break
            finally:
                del self._variables[known:]
        if not turned:
            self._run(node.otherwise, dot)

    def _assign(self, name: str, value: Any, *, declares: bool) -> None:
        if declares:
            self._variables.append((name, value))
            return
        for place_of in range(len(self._variables) - 1, -1, -1):
            if self._variables[place_of][0] == name:
                self._variables[place_of] = (name, value)
                return

    def _variable(self, name: str) -> Any:
        return next(value for known, value in reversed(self._variables) if known == name)

    def _pipe(self, pipe: Pipe, dot: Any, *, declares: bool = True) -> Any:
        value: Any = None
        for number, command in enumerate(pipe.commands):
            self._step(command, command.at)
            value = self._command(command, dot, (value,) if number else ())
        if declares:
            for name in pipe.variables:
                self._assign(name, value, declares=pipe.declares)
        return value

    def _command(self, command: Command, dot: Any, final: tuple[Any, ...]) -> Any:
        first = command.operands[0]
        if isinstance(first, Name):
            return self._call(command, first.name, command.operands[1:], dot, final)
        if len(command.operands) > 1 or final:
            message = f"can't give argument to non-function {first}"
            if isinstance(first, Path) and first.fields:
                message = f"{first.fields[-1]} is not a method but has arguments"
            raise self._template.failure(first, first.at, message)
        if isinstance(first, Literal) and first.value is None:
            raise self._template.failure(command, command.at, "nil is not a command")
        return self._operand(first, dot)

    def _operand(self, operand: Operand, dot: Any) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Name):
            return self._call(operand, operand.name, (), dot, ())
        if operand.root is None:
            value = dot
        elif isinstance(operand.root, str):
            value = self._variable(operand.root)
        else:
            value = self._pipe(operand.root, dot)
        for field in operand.fields:
            value = self._field(operand, value, field)
        return value

    def _field(self, node: Path, value: Any, field: str) -> Any:
        if isinstance(value, dict):
            return value.get(field)
        if value is None:
            return None
        message = f"can't evaluate field {field} in type {type_name(value)}"
        raise self._template.failure(node, node.at, message)

    def _call(
        self, node: Command | Name, name: str, operands: tuple[Operand, ...], dot: Any, final: tuple[Any, ...]
    ) -> Any:
        if name in _LOGICAL:
            return self._logical(node, name, operands, dot, final)
        if name == _LINE:
            function = Function(lambda: self._line, "")
        elif name == _TIMESTAMP:
            function = Function(lambda: Moment(self._time_ns), "")
        else:
            function = self._template.function(name)
        count, least, types = len(operands) + len(final), function.least, function.types
        variadic = types[-1:].isupper()
        if count < least or (count > least and not variadic):
            wanted = f"at least {least}" if variadic else str(least)
            raise self._template.failure(node, node.at, f"wrong number of args for {name}: want {wanted} got {count}")
        arguments = []
        for number in range(count):
            letter = types[min(number, len(types) - 1)].lower()
            if number < len(operands):
                arguments.append(self._argument(operands[number], letter, dot))
            else:
                arguments.append(self._checked(node, final[0], letter))
        try:
            value = function.call(*arguments)
            return bounded(value) if isinstance(value, str) else value
        except CallError as error:
            message = str(error)
            if not message.startswith("error calling "):
                message = f"error calling {name}: {message}"
            raise self._template.failure(node, node.at, message) from None

    def _logical(
        self, node: Command | Name, name: str, operands: tuple[Operand, ...], dot: Any, final: tuple[Any, ...]
    ) -> Any:
        """Return the first argument that decides, or the last."""
        if not operands and not final:
            raise self._template.failure(node, node.at, f"wrong number of args for {name}: want at least 1 got 0")
        value: Any = None
        for operand in operands:
            value = self._operand(operand, dot)
            if is_true(value) == (name == "or"):
                return value
        return final[0] if final else value

    def _argument(self, operand: Operand, letter: str, dot: Any) -> Any:
        if not isinstance(operand, Literal):
            return self._checked(operand, self._operand(operand, dot), letter)
        value = operand.value
        if letter == "a":
            return value
        types, name = _TYPES[letter]
        whole = isinstance(value, float) and value.is_integer()
        if letter == "i" and whole:
            return int(value)  # type: ignore[call-overload]  # a float
        if letter == "f" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if letter != "t" and isinstance(value, types) and not isinstance(value, bool):
            return value
        expected = {"i": "integer", "f": "float"}.get(letter, name)
        if value is None:
            raise self._template.failure(operand, operand.at, f"cannot assign nil to {name}")
        raise self._template.failure(operand, operand.at, f"expected {expected}; found {operand}")

    def _checked(self, node: Operand | Command, value: Any, letter: str) -> Any:
        """Return a value that has the type of an argument."""
        if letter == "a":
            return value
        types, name = _TYPES[letter]
        if value is None:
            raise self._template.failure(node, node.at, f"invalid value; expected {name}")
        if isinstance(value, types) and not isinstance(value, bool | Int64):
            return value
        raise self._template.failure(node, node.at, f"wrong type for value; expected {name}; got {type_name(value)}")
