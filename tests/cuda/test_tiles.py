"""The rules by which a product's size chooses its tile: what holds for any size."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tvm_qat.kernels.cuda import tiles

_ROWS, _COLUMNS, _DEPTHS = (1, 7, 49, 196, 3136), (1, 10, 64, 513, 2048, 30522), (1, 16, 63, 576, 2048, 4608)
_SIZES = tuple(itertools.product(_ROWS, _COLUMNS, _DEPTHS))
_PROCESSORS = 108


@pytest.mark.parametrize("choose", [tiles.choose_tile, tiles.choose_dot_tile])
def test_large_tiles_are_for_products_that_fill_a_gpu(choose: Any) -> None:
    small = choose(49, 512, 4608, 1)
    large = choose(3136, 30522, 4608, 1)
    assert (small.rows, small.columns) == (64, 64) and (large.rows, large.columns) == (128, 128)
    assert choose(49, 512, 4608, 128) == large


def test_shares_cover_the_depth_and_stay_worth_it() -> None:
    for rows, columns, depth in _SIZES:
        for choose in (tiles.choose_tile, tiles.choose_dot_tile):
            tile = choose(rows, columns, depth, 1)
            count, each = tiles.choose_shares(tile, rows, columns, depth)
            assert (count - 1) * each * tile.step < depth <= count * each * tile.step, (rows, columns, depth)
            if count > 1:
                down, across = tile.blocks(rows, columns)
                assert each * tile.step >= 512 and count * down * across <= _PROCESSORS, (
                    rows,
                    columns,
                    depth,
                )


def test_late_layers_of_resnet_50_are_shared() -> None:
    """At batch 1: 3x3 convolutions of 256 and 512 channels, 1x1 from 2048; not those to 2048."""
    sizes = [(196, 256, 2304), (49, 512, 4608), (49, 512, 2048), (49, 2048, 512)]
    counts = [tiles.choose_shares(tiles.choose_tile(*size, 1), *size)[0] for size in sizes]
    assert counts == [4, 9, 4, 1]


@pytest.mark.parametrize("rows", range(1, tiles.FEW + 1))
def test_thin_tiles_fit_into_a_block(rows: int) -> None:
    """48 KB of shared memory, and whole groups of four columns."""
    for columns, depth in itertools.product(_COLUMNS, _DEPTHS):
        tile = tiles.choose_thin_tile(rows, columns, depth, 1)
        assert tile.rows == rows and tile.columns % 4 == 0 and tile.threads == 256, (columns, depth)
        assert tile.words * 4 <= 48 << 10, (columns, depth)


def test_thin_tiles_leave_no_multiprocessor_idle() -> None:
    """Where there is enough to do: four warps share the depth of a classifier, none that of an embedding."""
    classifier, embedding = tiles.choose_thin_tile(1, 1000, 2048, 1), tiles.choose_thin_tile(1, 30522, 768, 1)
    assert classifier.text == "QatThinTile<1, 4, 32, 2, 4>" and classifier.blocks(1, 1000)[1] >= _PROCESSORS
    assert embedding.text == "QatThinTile<1, 4, 32, 8, 1>"
