"""Go's text/template, as far as LogQL has it: from a text to a tree.

Understood are `{{ pipeline }}` with `-` to trim white space, comments, `if`, `else if`, `else`, `range`, `with`, `break`,
`continue` and `end`; variables (`$x := …`, `$x = …`); fields, calls of functions, parentheses, and Go's literals.
`define`, `template` and `block` are refused: a template that calls itself would have no end. Nesting is at most
`NESTING_MAX` deep, which bounds the recursion here and wherever a tree is walked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from collector.query.logql.literals import number, quote, string

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

NESTING_MAX = 32
"""How deep blocks and parentheses may nest."""

TEMPLATE_LENGTH_MAX = 65_536
"""Characters of a template."""

_ACTION = re.compile(
    r"\{\{(?P<trim_left>-(?=[ \t\r\n]))?"
    r"(?:(?P<comment>[ \t\r\n]*/\*.*?\*/)|(?P<inside>(?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|'(?:\\.|[^'\\])*'|(?!\}\})[^\"`'])*?))"
    r"(?P<trim_right>[ \t\r\n]-)?\}\}",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\n]+)
    | (?P<number>[+-]?(?:0[xX][0-9A-Fa-f_]+|(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![\w.]))
    | (?P<field>\.[^\W\d]\w*)
    | (?P<dot>\.)
    | (?P<variable>\$\w*)
    | (?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)
    | (?P<char>'(?:\\.|[^'\\\n])+')
    | (?P<word>[^\W\d]\w*)
    | (?P<symbol>:=|[=,|()])
    """,
    re.VERBOSE,
)
_SPACES = " \t\r\n"


class TemplateError(Exception):
    """A template that is none; the message says where and why."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: text, number, truth value, or nil (None)."""

    value: object
    text: str
    at: int

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Path:
    """Fields of something: of the dot (None), of a variable (its name), or of a pipeline in parentheses."""

    root: str | Pipe | None
    fields: tuple[str, ...]
    at: int

    def __str__(self) -> str:
        root = "" if self.root is None else self.root if isinstance(self.root, str) else f"({self.root})"
        return root + "".join(f".{field}" for field in self.fields) if root or self.fields else "."


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a function."""

    name: str
    at: int

    def __str__(self) -> str:
        return self.name


Operand = Literal | Path | Name


@dataclass(frozen=True, slots=True)
class Command:
    """Operands side by side: a value, or a function and its arguments."""

    operands: tuple[Operand, ...]
    at: int

    def __str__(self) -> str:
        return " ".join(map(str, self.operands))


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each with the value of the one before as its last argument; its value may go to variables."""

    variables: tuple[str, ...]
    declares: bool
    commands: tuple[Command, ...]
    at: int

    def __str__(self) -> str:
        names = f"{', '.join(self.variables)} {':=' if self.declares else '='} " if self.variables else ""
        return names + " | ".join(map(str, self.commands))


@dataclass(frozen=True, slots=True)
class Text:
    """What is put out as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """`{{ pipeline }}`."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Block:
    """`if`, `with` or `range`."""

    word: str
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` or `continue`."""

    word: str


Node = Text | Action | Block | Jump


def parse_template(text: str, functions: Collection[str]) -> tuple[Node, ...]:
    """Return the tree of a template that calls these functions. Raises TemplateError."""
    if len(text) > TEMPLATE_LENGTH_MAX:
        raise TemplateError(f"a template of more than {TEMPLATE_LENGTH_MAX} characters")
    return _Parser(text, functions).parse()


def place(text: str, at: int) -> str:
    """Return a place in a template as Go tells it: line and byte of the line."""
    before = text[:at]
    return f"{before.count(chr(10)) + 1}:{len(before[before.rfind(chr(10)) + 1 :].encode())}"


class _Parser:
    def __init__(self, text: str, functions: Collection[str]) -> None:
        self._text = text
        self._functions = functions
        self._pieces = list(self._split())
        self._index = 0
        self._tokens: list[_Token] = []
        self._place = 0
        self._variables = ["$"]
        self._ranges = 0
        self._depth = 0

    def parse(self) -> tuple[Node, ...]:
        nodes, word = self._list()
        if word:
            raise self._error(f"unexpected {{{{{word}}}}}", self._at())
        return nodes

    def _split(self) -> Iterator[str | _Token]:
        """Yield texts, and the insides of actions."""
        at = 0
        trims = False
        while True:
            begin = self._text.find("{{", at)
            found = _ACTION.match(self._text, begin) if begin >= 0 else None
            if begin >= 0 and found is None:
                raise self._error("unclosed action", begin)
            literal = self._text[at:begin] if found else self._text[at:]
            if trims:
                literal = literal.lstrip(_SPACES)
            if found is None:
                if literal:
                    yield literal
                return
            if found["trim_left"]:
                literal = literal.rstrip(_SPACES)
            if literal:
                yield literal
            if found["comment"] is None:
                yield _Token("action", found["inside"], found.start("inside"))
            trims = bool(found["trim_right"])
            at = found.end()

    def _error(self, message: str, at: int) -> TemplateError:
        return TemplateError(f"template: line:{place(self._text, at).split(':')[0]}: {message}")

    def _at(self) -> int:
        return self._tokens[min(self._place, len(self._tokens) - 1)].at if self._tokens else 0

    def _list(self) -> tuple[tuple[Node, ...], str]:
        """Read nodes up to an `else` or `end`, which is returned with its action begun, or to the template's end."""
        nodes: list[Node] = []
        while self._index < len(self._pieces):
            piece = self._pieces[self._index]
            self._index += 1
            if isinstance(piece, str):
                nodes.append(Text(piece))
                continue
            self._begin(piece)
            word = self._peek().text if self._peek().kind == "word" else ""
            if word in ("else", "end"):
                self._take()
                return tuple(nodes), word
            if word in ("if", "with", "range"):
                self._take()
                nodes.append(self._block(word))
            elif word in ("break", "continue"):
                self._take()
                if not self._ranges:
                    raise self._error(f"{{{{{word}}}}} outside {{{{range}}}}", piece.at)
                self._end()
                nodes.append(Jump(word))
            elif word in ("define", "template", "block"):
                raise self._error(f"{word!r} is not supported", piece.at)
            else:
                nodes.append(Action(self._pipe("command")))
                self._end()
        return tuple(nodes), ""

    def _begin(self, piece: _Token) -> None:
        self._tokens = []
        self._place = 0
        at = 0
        while at < len(piece.text):
            found = _TOKEN.match(piece.text, at)
            if found is None or found.lastgroup is None:
                raise self._error(f"unexpected {piece.text[at]!r} in action", piece.at + at)
            self._tokens.append(_Token(found.lastgroup, found.group(), piece.at + at))
            at = found.end()
        self._tokens.append(_Token("end", "}}", piece.at + at))
        self._skip()

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > NESTING_MAX:
            raise self._error(f"nests deeper than {NESTING_MAX} levels", self._at())

    def _block(self, word: str) -> Block:
        self._enter()
        known = len(self._variables)
        pipe = self._pipe(word)
        self._end()
        self._ranges += word == "range"
        body, ends = self._list()
        self._ranges -= word == "range"
        otherwise: tuple[Node, ...] = ()
        if ends == "else":
            self._skip()
            following = self._peek()
            if following.kind == "word" and following.text in ("if", "with") and word != "range":
                self._take()
                otherwise = (self._block(following.text),)
                ends = "end"  # the inner one's is this one's, too
            else:
                self._end()
                del self._variables[known:]
                otherwise, ends = self._list()
                if ends == "end":
                    self._end()
        elif ends == "end":
            self._end()
        if ends != "end":
            raise self._error("unexpected EOF" if not ends else f"unexpected {{{{{ends}}}}}", self._at())
        del self._variables[known:]
        self._depth -= 1
        return Block(word, pipe, body, otherwise)

    def _peek(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        token = self._tokens[self._place]
        if token.kind != "end":
            self._place += 1
        return token

    def _skip(self) -> None:
        while self._peek().kind == "space":
            self._place += 1

    def _end(self) -> None:
        self._skip()
        if self._peek().kind != "end":
            raise self._error(f"unexpected {self._peek().text!r} in command", self._at())

    def _pipe(self, context: str) -> Pipe:
        self._skip()
        at = self._at()
        names, declares = self._assigned(context)
        commands = [self._command()]
        while self._peek().text == "|" and self._peek().kind == "symbol":
            self._take()
            command = self._command()
            if not isinstance(command.operands[0], Name | Path):
                raise self._error("non executable command in pipeline stage 2", command.at)
            commands.append(command)
        if declares:
            self._variables.extend(names)
        return Pipe(names, declares, tuple(commands), at)

    def _assigned(self, context: str) -> tuple[tuple[str, ...], bool]:
        """Read `$x :=`, `$x =` or, for a range, `$i, $x :=`, if it is there."""
        begin = self._place
        names: list[str] = []
        while self._peek().kind == "variable" and len(names) < 2:
            names.append(self._take().text)
            self._skip()
            if self._peek().text == "," and len(names) == 1 and context == "range":
                self._take()
                self._skip()
                continue
            if self._peek().text in (":=", "="):
                declares = self._take().text == ":="
                for name in names:
                    if not declares:
                        self._check_variable(name)
                return tuple(names), declares
            break
        self._place = begin
        return (), False

    def _check_variable(self, name: str) -> None:
        if name not in self._variables:
            raise self._error(f"undefined variable {quote(name)}", self._at())

    def _command(self) -> Command:
        self._skip()
        at = self._at()
        operands: list[Operand] = []
        while True:
            token = self._peek()
            if token.kind == "end" or (token.kind == "symbol" and token.text in ("|", ")")):
                break
            operands.append(self._operand())
            if self._peek().kind == "space":
                self._skip()
            elif self._peek().kind != "end" and self._peek().text not in ("|", ")"):
                raise self._error(f"unexpected {self._peek().text!r} in operand", self._at())
        if not operands:
            raise self._error("missing value for command", at)
        return Command(tuple(operands), at)

    def _operand(self) -> Operand:
        token = self._take()
        match token.kind:
            case "field":
                return Path(None, (token.text[1:], *self._fields()), token.at)
            case "dot":
                return Path(None, (), token.at)
            case "variable":
                self._check_variable(token.text)
                return Path(token.text, self._fields(), token.at)
            case "word":
                return self._word(token)
            case "number" | "string" | "char":
                return self._literal(token)
            case "symbol" if token.text == "(":
                self._enter()
                pipe = self._pipe("parenthesized pipeline")
                self._skip()
                if self._take().text != ")":
                    raise self._error("unclosed left paren", token.at)
                self._depth -= 1
                return Path(pipe, self._fields(), token.at)
        raise self._error(f"unexpected {token.text!r} in operand", token.at)

    def _fields(self) -> tuple[str, ...]:
        fields: list[str] = []
        while self._peek().kind == "field":
            fields.append(self._take().text[1:])
        return tuple(fields)

    def _word(self, token: _Token) -> Operand:
        constants = {"true": True, "false": False, "nil": None}
        if token.text in constants:
            return Literal(constants[token.text], token.text, token.at)
        if token.text not in self._functions:
            raise self._error(f"function {quote(token.text)} not defined", token.at)
        return Name(token.text, token.at)

    def _literal(self, token: _Token) -> Literal:
        text = token.text
        try:
            if token.kind == "string":
                return Literal(string(text), text, token.at)
            if token.kind == "char":
                char = string('"' + text[1:-1].replace('"', '\\"').replace("\\'", "'") + '"')
                if len(char) != 1:
                    raise ValueError("more than one character")
                return Literal(ord(char), text, token.at)
            digits = text.lstrip("+-").replace("_", "")
            sign = -1 if text[0] == "-" else 1
            if digits.isdigit() or digits[:2] in ("0x", "0X"):
                octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
                whole = int(digits, 8 if octal else 10) if digits.isdigit() else int(digits, 16)
                if whole >= 2**63:
                    raise ValueError("a number that is too large")
                return Literal(sign * whole, text, token.at)
            return Literal(sign * number(digits), text, token.at)
        except ValueError as error:
            raise self._error(f"bad literal {text[:40]}: {error}", token.at) from None
