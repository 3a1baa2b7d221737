from __future__ import annotations

import random
from itertools import pairwise

import pytest

from tvm_qat.html_report.layout import ROW, Layout, layout_of


def network(count: int, seed: int) -> list[tuple[int, int]]:
    """A chain with branches and long residuals."""
    rng = random.Random(seed)
    found = {(max(node - rng.choice([1, 1, 1, 2]), 0), node) for node in range(1, count)}
    found |= {(node, min(node + rng.randrange(2, 40), count - 1)) for node in range(0, count - 2, 4)}
    return sorted((a, b) for a, b in found if a < b)


def overlaps(layout: Layout, widths: list[float]) -> list[tuple[int, int]]:
    rows: dict[float, list[tuple[float, float, int]]] = {}
    for node, ((x, y), width) in enumerate(zip(layout.places, widths, strict=True)):
        rows.setdefault(y, []).append((x - width / 2, x + width / 2, node))
    found = []
    for row in rows.values():
        row.sort()
        found += [(a[2], b[2]) for a, b in pairwise(row) if b[0] < a[1]]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_three_hundred_nodes_do_not_overlap_and_stand_below_what_they_read(seed: int):
    edges = network(300, seed)
    widths = [80.0 + 10 * (node % 12) for node in range(300)]
    layout = layout_of(widths, edges)
    assert overlaps(layout, widths) == []
    assert all(layout.places[a][1] < layout.places[b][1] for a, b in edges)
    for (x, y), width in zip(layout.places, widths, strict=True):
        assert x - width / 2 >= -1e-6 and x + width / 2 <= layout.width + 1e-6 and 0 < y < layout.height


def test_a_long_edge_has_a_point_in_every_row_it_passes_and_goes_around_nodes():
    layout = layout_of([100.0] * 5, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)])
    route = layout.routes[-1]
    assert [y for _, y in route] == [ROW * (row + 0.5) for row in range(5)]
    for x, y in route[1:-1]:
        (node,) = [place for place in layout.places if place[1] == y]
        assert abs(x - node[0]) > 50


def test_edges_from_one_node_share_their_way():
    """An attention mask is read by every layer of a transformer."""
    edges = [(i, i + 1) for i in range(39)] + [(0, i) for i in range(4, 40, 4)]
    layout = layout_of([100.0] * 40, edges)
    longest = layout.routes[-1]
    for route in layout.routes[39:]:
        assert route[:-1] == longest[: len(route) - 1]


def test_a_chain_is_straight_and_two_inputs_stand_right_above_their_reader():
    chain = layout_of([60.0, 120.0, 90.0], [(0, 1), (1, 2)])
    assert len({round(x, 6) for x, _ in chain.places}) == 1
    late = layout_of([60.0] * 4, [(0, 1), (1, 3), (2, 3)])
    assert late.places[2][1] == late.places[1][1]


def test_an_edge_that_leads_back_is_drawn():
    layout = layout_of([60.0, 60.0], [(0, 1), (1, 0)])
    assert len(layout.routes) == 2 and layout.places[0][1] < layout.places[1][1]


def test_a_graph_without_nodes_has_no_size():
    assert layout_of([], []) == Layout(0.0, 0.0, (), ())
