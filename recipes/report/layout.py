"""A small layered layout for a directed acyclic graph (Sugiyama's method with one shared trunk per source).

Every node gets a layer (its longest path from a source) and a place in it. A node that feeds later layers sends
one trunk down through them, from which its targets branch off: a data stage with ten consumers then draws one
line, not ten.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

NODE_WIDTH, TRUNK_WIDTH, GAP = 196.0, 8.0, 20.0
SPINE, STRAIGHT = 30.0, 6.0  # pull of links of the spine and between trunk places, against 1 of the others
Node = Hashable


@dataclass
class Layout:
    """layers: per layer the nodes and trunk places left to right. x: centre of each. links: drawn pieces (from, to).

    A trunk place is the tuple ("trunk", source, layer).
    """

    layers: list[list[Node]]
    x: dict[Node, float]
    links: list[tuple[Node, Node]]
    width: float


def is_trunk(node: Node) -> bool:
    return isinstance(node, tuple) and len(node) == 3 and node[0] == "trunk"


def lay_out(nodes: Sequence[str], edges: Sequence[tuple[str, str]], spine: Sequence[tuple[str, str]] = ()) -> Layout:
    """Place `nodes` (in reading order) so that `edges` (source, target) run downwards. Edges of a cycle are left out.

    spine: edges that should run straight down, here from policy to policy.
    """
    edges = _acyclic(nodes, edges)
    depth = _depths(nodes, edges)
    layers, links = _with_trunks(nodes, edges, depth)
    above: dict[Node, list[Node]] = {}
    below: dict[Node, list[Node]] = {}
    for a, b in links:
        below.setdefault(a, []).append(b)
        above.setdefault(b, []).append(a)
    _order(layers, above, below)
    x = _coordinates(layers, above, below, _pull(links, set(spine)))
    left = min(x[n] - _width(n) / 2 for n in x)
    x = {n: value - left for n, value in x.items()}
    return Layout(layers, x, links, max(x[n] + _width(n) / 2 for n in x))


def _width(node: Node) -> float:
    return TRUNK_WIDTH if is_trunk(node) else NODE_WIDTH


def _acyclic(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges between known nodes, each once, without those that close a cycle (only a damaged run has any)."""
    known, kept = set(nodes), []
    below: dict[str, set[str]] = {n: set() for n in nodes}

    def reaches(start: str, goal: str) -> bool:
        stack, seen = [start], set()
        while stack:
            node = stack.pop()
            if node == goal:
                return True
            if node not in seen:
                seen.add(node)
                stack.extend(below[node])
        return False

    for a, b in dict.fromkeys(edges):
        if a in known and b in known and not reaches(b, a):
            below[a].add(b)
            kept.append((a, b))
    return kept


def _depths(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    depth = dict.fromkeys(nodes, 0)
    for _ in nodes:  # longest paths by relaxation: at most one round a node
        changed = False
        for a, b in edges:
            if depth[b] < depth[a] + 1:
                depth[b], changed = depth[a] + 1, True
        if not changed:
            break
    sources = set(nodes) - {b for _, b in edges}
    for node in sources:  # a source stands right above its first consumer
        targets = [depth[b] for a, b in edges if a == node]
        depth[node] = max(0, min(targets) - 1) if targets else 0
    return depth


def _with_trunks(nodes, edges, depth) -> tuple[list[list[Node]], list[tuple[Node, Node]]]:
    layers: list[list[Node]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for node in nodes:
        layers[depth[node]].append(node)
    links: list[tuple[Node, Node]] = []
    for node in nodes:
        targets = [b for a, b in edges if a == node]
        place: Node = node
        for layer in range(depth[node] + 1, max((depth[t] for t in targets), default=0) + 1):
            links += [(place, t) for t in targets if depth[t] == layer]
            if any(depth[t] > layer for t in targets):
                trunk = ("trunk", node, layer)
                layers[layer].append(trunk)
                links.append((place, trunk))
                place = trunk
    return layers, links


def _order(layers: list[list[Node]], above: dict, below: dict) -> None:
    """Reorder every layer by the mean place of its neighbours; keep the best order seen."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers, below)
    for sweep in range(16):
        downwards = sweep % 2 == 0
        for i in range(1, len(layers)) if downwards else range(len(layers) - 2, -1, -1):
            place = {n: k for k, n in enumerate(layers[i - 1 if downwards else i + 1])}
            mine, near = {n: k for k, n in enumerate(layers[i])}, above if downwards else below

            def key(n, place=place, near=near, mine=mine):
                at = [place[m] for m in near.get(n, ()) if m in place]
                return sum(at) / len(at) if at else mine[n]

            layers[i].sort(key=key)
        crossings = _crossings(layers, below)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    layers[:] = best


def _crossings(layers: list[list[Node]], below: dict) -> int:
    total = 0
    for upper, lower in zip(layers, layers[1:]):
        place = {n: k for k, n in enumerate(lower)}
        ends = [(i, place[b]) for i, n in enumerate(upper) for b in below.get(n, ()) if b in place]
        total += sum(
            a[0] < b[0] and a[1] > b[1] or a[0] > b[0] and a[1] < b[1] for k, a in enumerate(ends) for b in ends[:k]
        )
    return total


def _pull(links: list[tuple[Node, Node]], spine: set[tuple[str, str]]) -> dict[tuple[Node, Node], float]:
    """How strongly each link wants to be vertical, under both orders of its ends."""
    ahead: dict[Node, set[str]] = {}  # the nodes that can still be reached along a trunk
    for a, b in reversed(links):
        ahead.setdefault(a, set()).update(ahead.get(b, set()) if is_trunk(b) else {b})
    pull = {}
    for a, b in links:
        source, targets = (a[1] if is_trunk(a) else a), (ahead.get(b, set()) if is_trunk(b) else {b})
        strength = (
            SPINE if any((source, t) in spine for t in targets) else STRAIGHT if is_trunk(a) and is_trunk(b) else 1.0
        )
        pull[a, b] = pull[b, a] = strength
    return pull


def _coordinates(layers: list[list[Node]], above: dict, below: dict, pull: dict) -> dict[Node, float]:
    x: dict[Node, float] = {}
    for layer in layers:
        cursor = 0.0
        for node in layer:
            x[node] = cursor + _width(node) / 2
            cursor += _width(node) + GAP
    for sweep in range(120):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            wish, weight = [], []
            for node in layer:
                near = above.get(node, []) + below.get(node, [])
                total = sum(pull[node, m] for m in near)
                wish.append(sum(pull[node, m] * x[m] for m in near) / total if near else x[node])
                weight.append(total or 1.0)
            for node, value in zip(layer, _apart(layer, wish, weight)):
                x[node] = value
    return x


def _apart(layer: list[Node], wish: list[float], weight: list[float]) -> list[float]:
    """The places nearest to `wish` (weighted squares) that keep the order and the gaps: isotonic regression."""
    offset, cursor = [], 0.0
    for i, node in enumerate(layer):
        cursor += 0.0 if i == 0 else (_width(layer[i - 1]) + _width(node)) / 2 + GAP
        offset.append(cursor)
    blocks: list[list[float]] = []  # [mean, weight, length]
    for value, w, shift in zip(wish, weight, offset):
        blocks.append([value - shift, w, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, w2, n = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * w2) / (last[1] + w2)
            last[1], last[2] = last[1] + w2, last[2] + n
    means = [mean for mean, _, n in blocks for _ in range(int(n))]
    return [mean + shift for mean, shift in zip(means, offset)]
