"""The weights of the next block are fetched ahead, all of them, and only where that pays."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import LEVELS, Case, compiled_module, module_of
from tests.kernels.linear_cases import conv_case, integers
from tests.kernels.pointwise_cases import U8
from tests.kernels.test_dot import dense
from tests.support.assembly import X86, inner_loops, spills
from tvm_qat.kernels.loops import tiles
from tvm_qat.kernels.prefetch import NextBlock
from tvm_qat.qnn import build as qnn

_PREFETCH = re.compile(r"prefetcht0\b")


def assembly_of(one: Case, level: str) -> str:
    return str(compiled_module(module_of([one]), LEVELS[level]).mod.imports[0].inspect_source("asm"))


def loops_of(one: Case, level: str) -> list[list[str]]:
    """Inner loops that add products."""
    loops = inner_loops(assembly_of(one, level), X86)
    return [loop for loop in loops if any(re.match("vpdpbusd|vpmaddwd", line) for line in loop)]


def conv(**options: Any) -> Case:
    rng = np.random.default_rng(0)
    return conv_case(str(options), rng, **{"size": (7, 12), "inner": 64, "outer": 192, **options})


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "one",
    [dense("near", 40, 256, 130), dense("far", 40, 1024, 130), conv(zero=0), conv(zero=3), conv(batch=2)],
    ids=lambda one: one.name,
)
def test_turns_of_the_inner_loop_fetch_the_next_block(one: Case, level: str) -> None:
    loops = loops_of(one, level)
    assert loops
    assert all(any(map(_PREFETCH.match, loop)) for loop in loops)
    assert not [found for loop in loops if (found := spills(loop, X86))]


@pytest.mark.parametrize(
    "one",
    [
        dense("a single tile", 4, 1024, 130),
        dense("short sums", 40, 32, 130),
        dense("many outputs", 2000, 256, 130),
        conv(run_time=True),
    ],
    ids=lambda one: one.name,
)
def test_nothing_is_fetched_where_it_would_not_pay(one: Case) -> None:
    assert not [line for loop in loops_of(one, "cascadelake") for line in loop if _PREFETCH.match(line)]


@pytest.mark.parametrize(
    ("pixels", "most", "lines", "turns"), [(49, 6, 2048, 32), (196, 6, 64, 4), (13, 6, 77, 5)]
)
def test_the_tiles_of_a_block_fetch_every_line(pixels: int, most: int, lines: int, turns: int) -> None:
    ahead, fetched = NextBlock(None, pixels, lines), set()
    for size, count, start in tiles(pixels, most):
        for tile in range(count):
            for turn in range(turns):
                first, many = ahead.share(start + tile * size, size, turn, turns)
                fetched |= set(range(first, first + many))
    assert fetched >= set(range(lines))


@pytest.mark.parametrize(("rows", "pixels"), [(12, 4), (7, 4 + 3)])
def test_what_is_added_to_a_tile_is_fetched_before_its_sums(rows: int, pixels: int) -> None:
    """One line for each pixel of each kind of tile; the data, which has the same shape, is not."""
    plain = dense("square", rows, 64, 64)
    (x,), rng = plain.inputs, np.random.default_rng(2)

    def graph(data: Any, other: Any) -> list[Any]:
        steps = plain.graph(data)
        assert isinstance(steps, list)
        return [*steps, lambda y: qnn.elementwise("add", y, other, U8, U8, U8)]

    other = integers(rng, "uint8", *x.shape)
    added = Case("added", graph, (x, other), composite=True)
    assert (fetched(plain), fetched(added)) == (0, pixels)


def fetched(one: Case) -> int:
    return len(_PREFETCH.findall(assembly_of(one, "cascadelake")))
