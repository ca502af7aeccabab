"""Random traces of every deformity, random queries over them, and what the queries answer by definition.

The oracle knows spans as Python objects and the syntax tree of a query. It looks at each pair of spans, follows parents
one by one, and shares nothing with the engine but the parser.
"""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from random import Random
from typing import Any

from collector.otlp.signals import TRACES
from collector.query.traceql import ast
from collector.query.traceql.ast import Binary, Literal, Type, Unary

COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=~": lambda text, expression: re.fullmatch(expression, text) is not None,
}


@dataclass(eq=False)
class Node:
    """One span."""

    trace: int
    span_id: int
    parent_id: int
    name: str
    service: str
    x: int | None
    time: int
    duration: int
    who: str | None = None
    offset: int = -1


def forest(chance: Random, traces: int, spans_max: int) -> list[Node]:
    """Make spans of so many traces in random order, with several roots, orphans, cycles and ids that come twice."""
    nodes = []
    for trace in range(1, traces + 1):
        count = chance.randint(1, spans_max)
        ids = (
            [chance.randint(1, 3 * count) for _ in range(count)] if chance.random() < 0.3 else list(range(1, count + 1))
        )
        deformed = chance.random() < 0.6
        for at in range(count):
            parent = ids[chance.randrange(at)] if at else 0
            if at and chance.random() < 0.3:
                parent = ids[at - 1]
            if deformed and chance.random() < 0.3:
                parent = chance.choice([0, 900 + chance.randint(0, 2), ids[at], chance.choice(ids)])
            nodes.append(
                Node(
                    trace,
                    ids[at],
                    parent,
                    chance.choice("ab"),
                    chance.choice("st"),
                    chance.choice([None, 0, 1, 2]),
                    chance.randint(1, 60),
                    chance.randint(0, 20),
                    chance.choice(WHO) if chance.random() < 0.2 else None,
                )
            )
    chance.shuffle(nodes)
    for offset, node in enumerate(nodes):
        node.offset = offset
    return nodes


def payloads(chance: Random, nodes: list[Node]) -> list[bytes]:
    """Write the spans as requests of random sizes, in their order."""
    made = []
    at = 0
    while at < len(nodes):
        some = nodes[at : at + chance.randint(1, 12)]
        at += len(some)
        request = TRACES.request_type()
        for node in some:
            envelope = request.resource_spans.add()
            envelope.resource.attributes.add(key="service.name").value.string_value = node.service
            span = envelope.scope_spans.add().spans.add(
                trace_id=node.trace.to_bytes(16, "big"),
                span_id=node.span_id.to_bytes(8, "big"),
                parent_span_id=node.parent_id.to_bytes(8, "big") if node.parent_id else b"",
                name=node.name,
                start_time_unix_nano=node.time,
                end_time_unix_nano=node.time + node.duration,
            )
            if node.x is not None:
                span.attributes.add(key="x").value.int_value = node.x
            if node.who is not None:
                span.attributes.add(key="who").value.string_value = node.who
        made.append(request.SerializeToString())
    return made


WHO = ("customer-1", "customer-2", "customer-3")
CONDITIONS = (
    "",
    *("span.x = 0", "span.x = 1", "span.x >= 1", "span.x = nil", 'name = "a"', 'name = "b"', 'name = "z"'),
    *('resource.service.name = "s"', "duration > 10ns", '.x = 2 || name = "a"', 'name = "a" && span.x != 1'),
    *("childCount = 0", "childCount > 1", "parent.span.x = 1", 'parent.resource.service.name = "s"', "parent.x = nil"),
    *("nestedSetParent < 0", "nestedSetLeft > 3", "nestedSetRight - nestedSetLeft = 1", "nestedSetParent = 0"),
    *("trace:duration > 40ns", 'rootName = "a"', 'rootServiceName = "s" && span.x = 1', "parent = nil"),
    *('span.x = 1 || name = "a" && duration > 5ns', '(span.x = 1 || name = "a" && duration > 5ns) && .x != 2'),
    *('span.who = "customer-1"', '.who = "customer-2"', '.who = "customer-3"', '.who =~ "customer-(2|3)"'),
    *('.who = "customer-1" || span.x = 1', '.who != "customer-1"', '!(.who = "customer-2")', '.who = "customer-9"'),
    *('parent.who = "customer-1"', '.who = "customer-3" && childCount > 0'),
    *('name = "b" && span.x = 0 || duration > 10ns && .x = 1', 'parent = nil || span.x = 1 && name = "b"'),
)
STAGES = (
    *("count() > 1", "count() = 2", "avg(span.x) >= 1", "max(duration) > 15ns", "sum(span.x) + count() < 5"),
    *("min(span.x) = 0", "by(name)", "by(span.x)", "coalesce()", '{ name = "a" }', "{ span.x >= 1 }", "select(span.x)"),
)


def query(chance: Random, depth: int = 2) -> str:
    """Make a query."""
    text = _spansets(chance, depth)
    grouped = False
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2, 3])):
        stage = chance.choice(STAGES)
        if chance.random() < 0.15 and not grouped:
            stage = _spansets(chance, 1)
        grouped = (grouped or stage.startswith("by")) and stage != "coalesce()"
        text += f" | {stage}"
    return text


def _spansets(chance: Random, depth: int) -> str:
    if depth == 0 or chance.random() < 0.15:
        return f"{{ {chance.choice(CONDITIONS)} }}"
    left, right = _spansets(chance, depth - 1), _spansets(chance, depth - 1)
    if chance.random() < 0.1:
        left += f" | {chance.choice(STAGES)}"
    if chance.random() < 0.1:
        middle = _spansets(chance, depth - 1)
        ops = chance.choice([("||", "&&"), ("&&", "||"), (chance.choice(ast.STRUCTURAL), "&&")])
        return f"({left}) {ops[0]} ({middle}) {ops[1]} ({right})"
    op = chance.choice(ast.STRUCTURAL) if chance.random() < 0.85 else chance.choice(["&&", "||"])
    return f"({left}) {op} ({right})"


# --- the oracle -------------------------------------------------------------------------------------------------


class Tree:
    """One trace, by definition."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = sorted(nodes, key=lambda node: (node.time, node.offset))
        self._nested: dict[int, tuple[int, int, int]] = {}
        self._counter = 1
        for node in self.nodes:
            if node.parent_id == 0:
                self._number(node, -1)

    def _number(self, node: Node, outer: int) -> None:
        left = self._counter
        self._counter += 1
        for one in self.nodes:
            if self.parent(one) is node:
                self._number(one, left)
        self._nested[id(node)] = (left, self._counter, outer)
        self._counter += 1

    def parents(self, node: Node) -> list[Node]:
        if node.parent_id in (0, node.span_id):
            return []
        return [one for one in self.nodes if one.span_id == node.parent_id]

    def parent(self, node: Node) -> Node | None:
        return next(iter(self.parents(node)), None)

    def ancestors(self, node: Node) -> list[Node]:
        found: list[Node] = []
        pending = self.parents(node)
        while pending:
            one = pending.pop()
            if not any(one is each for each in found):
                found.append(one)
                pending += self.parents(one)
        return [one for one in found if one.span_id != node.span_id]

    def relates(self, op: str, left: Node, right: Node) -> bool:
        """Tell whether `left op right` holds: right is left's descendant, child, ancestor, parent, sibling."""
        match op:
            case ">>":
                return any(one is left for one in self.ancestors(right))
            case ">":
                return any(one is left for one in self.parents(right))
            case "<<":
                return any(one is right for one in self.ancestors(left))
            case "<":
                return any(one is right for one in self.parents(left))
        return (
            left.parent_id == right.parent_id
            and left.span_id != right.span_id
            and all(one.parent_id not in (0, one.span_id) for one in (left, right))
        )

    # fields

    def value(self, node: Node, field: Any) -> Any:
        match field:
            case Literal():
                return field.value
            case Binary():
                left, right = self.value(node, field.left), self.value(node, field.right)
                return None if left is None or right is None else {"-": left - right, "+": left + right}[field.op]
            case ast.Attribute():
                subject = self.parent(node) if field.parent else node
                if subject is None:
                    return None
                return {"service.name": subject.service, "who": subject.who, "x": subject.x}[field.name]
        root = next((one for one in self.nodes if one.parent_id == 0), None)
        match field.name:
            case "span:name":
                return node.name
            case "span:duration":
                return node.duration
            case "span:childCount":
                return len({one.span_id for one in self.nodes if self.relates(">", node, one)})
            case "nestedSetLeft" | "nestedSetRight" | "nestedSetParent":
                place = ("nestedSetLeft", "nestedSetRight", "nestedSetParent").index(field.name)
                return self._nested.get(id(node), (0, 0, 0))[place]
            case "trace:duration":
                return max(one.time + one.duration for one in self.nodes) - min(one.time for one in self.nodes)
            case "trace:rootName":
                return root.name if root else None
            case "trace:rootService":
                return root.service if root else None
            case "parent":
                return True if node.parent_id else None
        raise AssertionError(field)

    def holds(self, node: Node, condition: Any) -> bool:
        match condition:
            case None:
                return True
            case Unary(op="!"):
                return not self.holds(node, condition.operand)
            case Binary(op="&&"):
                return self.holds(node, condition.left) and self.holds(node, condition.right)
            case Binary(op="||"):
                return self.holds(node, condition.left) or self.holds(node, condition.right)
            case Binary(right=Literal(type=Type.NIL)):
                return (self.value(node, condition.left) is None) == (condition.op == "=")
        left, right = self.value(node, condition.left), self.value(node, condition.right)
        return left is not None and right is not None and COMPARE[condition.op](left, right)

    # spansets

    def run(self, stages: Any, inside: list[Node]) -> list[list[Node]]:
        """Return the spansets that stages leave."""
        sets = [inside] if inside else []
        for stage in stages:
            match stage:
                case ast.Filter():
                    sets = [[one for one in each if self.holds(one, stage.expression)] for each in sets]
                case ast.SpansetOperation() | ast.Pipeline():
                    sets = [self.spanset(stage, [one for each in sets for one in each])]
                case ast.GroupBy():
                    split: list[list[Node]] = []
                    for each in sets:
                        groups: dict[Any, list[Node]] = {}
                        for one in each:
                            groups.setdefault(self.value(one, stage.expression), []).append(one)
                        split += groups.values()
                    sets = split
                case ast.Coalesce():
                    sets = [[one for each in sets for one in each]]
                case ast.ScalarFilter():
                    sets = [each for each in sets if self.compares(each, stage)]
            sets = [each for each in sets if each]
        return sets

    def spanset(self, node: Any, inside: list[Node]) -> list[Node]:
        if isinstance(node, ast.Filter):
            return [one for one in inside if self.holds(one, node.expression)]
        if isinstance(node, ast.Pipeline):
            return [one for each in self.run(node.stages, inside) for one in each]
        left, right = self.spanset(node.left, inside), self.spanset(node.right, inside)
        either = [one for one in inside if any(one is each for each in left + right)]
        if node.op == "||":
            return either
        if node.op == "&&":
            return either if left and right else []
        op = node.op.lstrip("!&")
        related = [one for one in right if any(self.relates(op, other, one) for other in left)]
        if node.op[0] == "!":
            return [one for one in right if not any(one is each for each in related)]
        if node.op[0] == "&":
            others = [one for one in left if any(self.relates(op, one, other) for other in right)]
            return [one for one in inside if any(one is each for each in related + others)]
        return related

    def scalar(self, some: list[Node], node: Any) -> float:
        if isinstance(node, Literal):
            return float(node.value)  # type: ignore[arg-type]
        if isinstance(node, ast.ScalarOperation):
            left, right = self.scalar(some, node.left), self.scalar(some, node.right)
            return {"+": left + right, "*": left * right, "-": left - right}[node.op]
        if node.expression is None:
            return float(len(some))
        found = [value for one in some if (value := self.value(one, node.expression)) is not None]
        if not found:
            return math.nan
        return float({"min": min, "max": max, "sum": sum, "avg": lambda ones: sum(ones) / len(ones)}[node.op](found))

    def compares(self, some: list[Node], stage: ast.ScalarFilter) -> bool:
        left, right = self.scalar(some, stage.left), self.scalar(some, stage.right)
        return not math.isnan(left) and not math.isnan(right) and COMPARE[stage.op](left, right)


def answer(nodes: list[Node], stages: Any, start: int, end: int) -> list[tuple[int, list[list[int]]]]:
    """Return (trace, the offsets of its spansets) of every trace in the answer, newest first."""
    found = []
    for trace in {node.trace for node in nodes}:
        tree = Tree([node for node in nodes if node.trace == trace])
        sets = [[one for one in each if start <= one.time <= end] for each in tree.run(stages, tree.nodes)]
        sets = [each for each in sets if each]
        if sets:
            best = max((one.time, one.offset) for each in sets for one in each)
            found.append((best, trace, sorted(sorted(one.offset for one in each) for each in sets)))
    return [(trace, sets) for _, trace, sets in sorted(found, key=lambda one: one[0], reverse=True)]
