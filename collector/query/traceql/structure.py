# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The tree of many traces at once, compiled: numbering of ids, what lies below and above, nested sets.

Spans are known by numbers: `node` is the number of a span's id in its trace, `parent` that of its parent's id, or -1
where there is none. Spans with the same id share a node, and a node may have several parents, be part of a cycle, or
have no span at all. So "below" is reachability in a graph of nodes; a node is never below or above itself.

Reachability is told for all traces in one walk: every node keeps up to two sources from which it is reached, and two
are enough, for one of them is not the node itself. Each edge is followed at most three times. Cost: about 30 ns a span.
"""

import cython
import numpy as np
from cython.cimports.collector.otlp.wire import MIX_1, SEED, mix
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free, malloc, realloc

_LEAST = cython.declare(uint64_t, 64)  # places of the smallest table

_Pair = cython.struct(first=uint64_t, second=uint64_t)


@cython.cclass
class Numbering:
    """Numbers pairs of 64-bit words in the order in which they come, from 0. For one thread at a time."""

    _places: cython.pointer(int32_t)  # number + 1 of the pair there; 0: none
    _pairs: cython.pointer(_Pair)
    _mask: uint64_t
    _room: int64_t
    count = cython.declare(int64_t, visibility="readonly")

    def __cinit__(self):
        self._mask = _LEAST - 1
        self._room = 32
        self._places = cython.cast(cython.pointer(int32_t), calloc(_LEAST, 4))
        self._pairs = cython.cast(cython.pointer(_Pair), malloc(self._room * cython.sizeof(_Pair)))
        if self._places == cython.NULL or self._pairs == cython.NULL:  # noqa: PLR1714 - pointers are in no tuple
            raise MemoryError

    def __dealloc__(self):
        free(self._places)
        free(self._pairs)

    def __len__(self) -> int:
        return self.count

    def add(self, first, second):
        """Return the number of each pair; pairs not known get the next numbers. MemoryError leaves those before."""
        return self._numbers(first, second, True)

    def find(self, first, second):
        """Return the number of each pair, -1 where it is not known."""
        return self._numbers(first, second, False)

    @cython.cfunc
    def _numbers(self, first, second, adding: cython.bint):
        one: cython.const[uint64_t][:] = np.asarray(first, np.uint64)
        two: cython.const[uint64_t][:] = np.asarray(second, np.uint64)
        n: cython.Py_ssize_t = one.shape[0]
        if two.shape[0] != n:
            raise ValueError("pairs have two words each")
        out = np.empty(n, np.int32)
        numbers: int32_t[::1] = out
        i: cython.Py_ssize_t
        at: uint64_t
        place: int32_t
        failed: cython.bint = False
        with cython.nogil:
            for i in range(n):
                at = mix(one[i] ^ SEED, two[i] ^ MIX_1) & self._mask
                while True:
                    place = self._places[at]
                    if place == 0:
                        break
                    if self._pairs[place - 1].first == one[i] and self._pairs[place - 1].second == two[i]:
                        break
                    at = (at + 1) & self._mask
                if place == 0 and adding:
                    if not self._append(one[i], two[i], at):
                        failed = True
                        break
                    place = cython.cast(int32_t, self.count)
                numbers[i] = place - 1
        if failed:
            raise MemoryError("more pairs than memory or 2^31")
        return out

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _append(self, first: uint64_t, second: uint64_t, at: uint64_t) -> cython.bint:
        """Take in a pair whose place is `at`; False when there is no room for it."""
        grown: cython.pointer(_Pair)
        if self.count >= 0x7FFFFFF0:
            return False
        if self.count == self._room:
            grown = cython.cast(cython.pointer(_Pair), realloc(self._pairs, 2 * self._room * cython.sizeof(_Pair)))
            if grown == cython.NULL:
                return False
            self._pairs = grown
            self._room *= 2
        self._pairs[self.count].first = first
        self._pairs[self.count].second = second
        self.count += 1
        self._places[at] = cython.cast(int32_t, self.count)
        if cython.cast(uint64_t, self.count) * 2 > self._mask:
            return self._widen()
        return True

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _widen(self) -> cython.bint:
        mask: uint64_t = self._mask * 2 + 1
        places: cython.pointer(int32_t) = cython.cast(cython.pointer(int32_t), calloc(mask + 1, 4))
        number: int64_t
        at: uint64_t
        if places == cython.NULL:
            return False
        for number in range(self.count):
            at = mix(self._pairs[number].first ^ SEED, self._pairs[number].second ^ MIX_1) & mask
            while places[at] != 0:
                at = (at + 1) & mask
            places[at] = cython.cast(int32_t, number + 1)
        free(self._places)
        self._places = places
        self._mask = mask
        return True


def _checked(numbers, below, n):
    """Return node numbers as a contiguous array; ValueError when one is out of bounds."""
    numbers = np.ascontiguousarray(numbers, np.int32)
    if len(numbers) != n or (n and (int(numbers.max()) >= below or int(numbers.min()) < -1)):
        raise ValueError("a number of a node is out of bounds")
    return numbers


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _reach(
    labels: cython.pointer(int32_t),
    queue: cython.pointer(int32_t),
    tail: cython.Py_ssize_t,
    node: int32_t,
    label: int32_t,
) -> cython.Py_ssize_t:
    """Note that `node` is reached from `label`, unless that is known or two others are; return the queue's new end."""
    if labels[2 * node] == label or labels[2 * node + 1] >= 0:
        return tail
    if labels[2 * node] < 0:
        labels[2 * node] = label
    else:
        labels[2 * node + 1] = label
    queue[2 * tail] = node
    queue[2 * tail + 1] = label
    return tail + 1


@cython.cfunc
def _reached(begins, ends, starts, sources, nodes: cython.Py_ssize_t):
    """Return for each node up to two sources from which it is reached.

    Edges lead from begins[i] to ends[i]. `starts[i]` is where source `sources[i]` enters: that node is reached.
    """
    edges: cython.Py_ssize_t = len(begins)
    entries: cython.Py_ssize_t = len(starts)
    labels = np.full((nodes, 2), -1, np.int32)
    if nodes == 0 or entries == 0:
        return labels
    places = np.zeros(nodes + 1, np.int64)
    np.cumsum(np.bincount(begins, minlength=nodes), out=places[1:])
    order = np.argsort(begins, kind="stable")
    targets = np.empty(max(edges, 1), np.int32)
    targets[:edges] = ends[order]
    waiting = np.empty((2 * nodes, 2), np.int32)
    label: int32_t[:, ::1] = labels
    place: cython.const[int64_t][::1] = places
    target: cython.const[int32_t][::1] = targets
    queue: int32_t[:, ::1] = waiting
    start: cython.const[int32_t][::1] = np.ascontiguousarray(starts, np.int32)
    source: cython.const[int32_t][::1] = np.ascontiguousarray(sources, np.int32)
    head: cython.Py_ssize_t = 0
    tail: cython.Py_ssize_t = 0
    known: cython.pointer(int32_t) = cython.address(label[0, 0])
    pending: cython.pointer(int32_t) = cython.address(queue[0, 0])
    i: cython.Py_ssize_t
    node: int32_t
    one: int32_t
    with cython.nogil:
        for i in range(entries):
            tail = _reach(known, pending, tail, start[i], source[i])
        while head < tail:
            node = pending[2 * head]
            one = pending[2 * head + 1]
            head += 1
            for i in range(place[node], place[node + 1]):
                tail = _reach(known, pending, tail, target[i], one)
    return labels


def below(node, parent, nodes: int, sources):
    """Tell for each span whether it is below one of the spans in the mask `sources`: a descendant of another node."""
    n: int = len(node)
    node, parent = _checked(node, nodes, n), _checked(parent, nodes, n)
    has = parent >= 0
    is_source = np.zeros(nodes, np.bool_)
    is_source[node[sources]] = True
    enters = np.flatnonzero(has & is_source[parent])
    labels = _reached(parent[has], node[has], node[enters], parent[enters], nodes)
    found = has.copy()
    above_it = labels[parent]
    own = node[:, None]
    found &= (is_source[parent] & (parent != node)) | ((above_it >= 0) & (above_it != own)).any(axis=1)
    return found


def above(node, parent, nodes: int, sources):
    """Tell for each span whether it is above one of the spans in the mask `sources`: an ancestor of another node."""
    n: int = len(node)
    node, parent = _checked(node, nodes, n), _checked(parent, nodes, n)
    has = parent >= 0
    enters = np.flatnonzero(has & np.asarray(sources, np.bool_))
    labels = _reached(node[has], parent[has], parent[enters], node[enters], nodes)[node]
    return ((labels >= 0) & (labels != node[:, None])).any(axis=1)


def nested_sets(trace, parent_row, roots, order) -> tuple:
    """Number the spans of each trace as nested sets: (left, right, the parent's left), 0 for what no root is above.

    `parent_row` is the row of each span's parent, -1 for none; `roots` a mask; `order` the rows with each trace
    together, in the order in which siblings are numbered. A root's parent is -1.
    """
    n: cython.Py_ssize_t = len(trace)
    left, right, outer = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    if n == 0:
        return left, right, outer
    parents = _checked(parent_row, n, n)
    rows = _checked(order, n, n)
    placed = parents[rows]
    has = placed >= 0
    places = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(placed[has], minlength=n), out=places[1:])
    children = np.full(n, -1, np.int32)
    kept = rows[has]
    children[: len(kept)] = kept[np.argsort(placed[has], kind="stable")]
    lefts: int64_t[::1] = left
    rights: int64_t[::1] = right
    outers: int64_t[::1] = outer
    row: cython.const[int32_t][::1] = rows
    child: cython.const[int32_t][::1] = children
    place: cython.const[int64_t][::1] = places
    root: cython.const[uint8_t][::1] = np.ascontiguousarray(roots, np.bool_).view(np.uint8)
    of: cython.const[int64_t][::1] = np.ascontiguousarray(trace, np.int64)
    nexts: int64_t[::1] = np.zeros(n, np.int64)
    stack: int32_t[::1] = np.zeros(n, np.int32)
    i: cython.Py_ssize_t
    depth: cython.Py_ssize_t
    counter: int64_t = 1
    current: int64_t = -1
    at: int32_t
    inner: int32_t
    with cython.nogil:
        for i in range(n):
            at = row[i]
            if of[at] != current:
                current = of[at]
                counter = 1
            if not root[at] or lefts[at] != 0:
                continue
            depth = 0
            stack[0] = at
            lefts[at] = counter
            counter += 1
            outers[at] = -1
            nexts[at] = place[at]
            while depth >= 0:
                at = stack[depth]
                if nexts[at] == place[at + 1]:
                    rights[at] = counter
                    counter += 1
                    depth -= 1
                    continue
                inner = child[nexts[at]]
                nexts[at] += 1
                if lefts[inner] != 0:
                    continue
                lefts[inner] = counter
                counter += 1
                outers[inner] = lefts[at]
                nexts[inner] = place[inner]
                depth += 1
                stack[depth] = inner
    return left, right, outer
