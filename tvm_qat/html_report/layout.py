"""Where the nodes of a graph are drawn: in rows from top to bottom, each below all that it reads.

Rows by longest path, order within a row by the mean place of the neighbours (a few sweeps up and
down), places as near to the mean of the neighbours as the widths allow. Edges from one node over
several rows share a point in each, as if a narrow node stood there, so that they lead around nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

ROW, GAP, LANE = 64.0, 24.0, 10.0
"""Height of a row, space between two nodes, width of edges that pass a row."""

_SWEEPS = 6


@dataclass(frozen=True)
class Layout:
    """places : the centre of each node. routes : the centres that each edge leads over, ends included."""

    width: float
    height: float
    places: tuple[tuple[float, float], ...]
    routes: tuple[tuple[tuple[float, float], ...], ...]


def layout_of(widths: Sequence[float], edges: Sequence[tuple[int, int]]) -> Layout:
    """widths : of the nodes, which stand in execution order. edges : (from, to).

    An edge that leads back (two nodes may bear one name) is drawn and otherwise passed over.
    """
    row = _rows(len(widths), edges)
    sizes = list(widths)
    lanes: dict[tuple[int, int], int] = {}
    chains = [_chain(edge, row, sizes, lanes) for edge in edges]
    neighbours = _neighbours(len(sizes), chains, row)
    rows: list[list[int]] = [[] for _ in range(max(row, default=-1) + 1)]
    for node, number in enumerate(row):
        rows[number].append(node)
    _order(rows, neighbours)
    x = _positions(rows, neighbours, sizes)
    left = min((x[i] - sizes[i] / 2 for i in range(len(sizes))), default=0.0)
    x = [value - left for value in x]
    places = [(x[i], (row[i] + 0.5) * ROW) for i in range(len(sizes))]
    width = max((x[i] + sizes[i] / 2 for i in range(len(sizes))), default=0.0)
    routes = tuple(tuple(places[i] for i in chain) for chain in chains)
    return Layout(width, len(rows) * ROW, tuple(places[: len(widths)]), routes)


def _rows(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The row of each node; of one that reads nothing, the row above its first reader."""
    row = [0] * count
    for source, reader in sorted(edges):
        if source < reader:
            row[reader] = max(row[reader], row[source] + 1)
    read = {reader for source, reader in edges if source < reader}
    for node in range(count):
        if node not in read:
            below = [row[reader] for source, reader in edges if source == node < reader]
            row[node] = max(min(below, default=1) - 1, 0)
    return row


def _chain(
    edge: tuple[int, int], row: list[int], sizes: list[float], lanes: dict[tuple[int, int], int]
) -> list[int]:
    """The nodes that an edge leads over. lanes : the narrow one of a source in a row, made as needed."""
    source, reader = edge
    passed = range(row[source] + 1, row[reader])
    for number in passed:
        if (source, number) not in lanes:
            lanes[source, number] = len(sizes)
            row.append(number)
            sizes.append(LANE)
    return [source, *(lanes[source, number] for number in passed), reader]


def _neighbours(
    count: int, chains: Sequence[Sequence[int]], row: Sequence[int]
) -> tuple[list[list[int]], list[list[int]]]:
    """(above, below) of each node."""
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for chain in chains:
        for a, b in pairwise(chain):
            if row[a] < row[b] and a not in above[b]:
                above[b].append(a)
                below[a].append(b)
    return above, below


def _order(rows: list[list[int]], neighbours: tuple[list[list[int]], list[list[int]]]) -> None:
    place = {node: float(i) for nodes in rows for i, node in enumerate(nodes)}
    for sweep in range(_SWEEPS):
        side = neighbours[sweep % 2]
        for nodes in rows if sweep % 2 == 0 else reversed(rows):
            wish = {node: _mean([place[n] for n in side[node]], place[node]) for node in nodes}
            nodes.sort(key=wish.__getitem__)
            place.update((node, float(i)) for i, node in enumerate(nodes))


def _positions(
    rows: list[list[int]], neighbours: tuple[list[list[int]], list[list[int]]], sizes: Sequence[float]
) -> list[float]:
    x = [0.0] * len(sizes)
    for nodes in rows:
        for node, value in zip(nodes, _apart([0.0] * len(nodes), nodes, sizes), strict=True):
            x[node] = value
    for sweep in range(2 * _SWEEPS):
        side = neighbours[sweep % 2]
        for nodes in rows if sweep % 2 == 0 else reversed(rows):
            wishes = [_mean([x[n] for n in side[node]], x[node]) for node in nodes]
            for node, value in zip(nodes, _apart(wishes, nodes, sizes), strict=True):
                x[node] = value
    return x


def _apart(wishes: Sequence[float], nodes: Sequence[int], sizes: Sequence[float]) -> list[float]:
    """Positions in the order of `nodes` without overlap, of the least squared distance to `wishes`.

    Less the room that the nodes before it need, each position must not fall below the one before:
    runs that do are replaced by their mean, until none does.
    """
    room, taken = 0.0, []
    for i, node in enumerate(nodes):
        if i:
            left = nodes[i - 1]
            gap = 0.0 if sizes[left] == sizes[node] == LANE else GAP
            room += (sizes[left] + sizes[node]) / 2 + gap
        taken.append(room)
    runs: list[tuple[float, int]] = []
    for wish, used in zip(wishes, taken, strict=True):
        mean, count = wish - used, 1
        while runs and runs[-1][0] > mean:
            before, many = runs.pop()
            mean, count = (mean * count + before * many) / (count + many), count + many
        runs.append((mean, count))
    flat = [mean for mean, count in runs for _ in range(count)]
    return [mean + used for mean, used in zip(flat, taken, strict=True)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
