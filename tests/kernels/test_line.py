"""What an inner loop needs of the registers, and what follows for loops and tiles."""

from __future__ import annotations

import pytest

from tvm_qat.kernels.blocking import dot_blocking
from tvm_qat.kernels.isa import DOT_PRODUCTS
from tvm_qat.kernels.isa_arm import ARM_DOT_PRODUCTS
from tvm_qat.kernels.line import Line, pixels_of_line
from tvm_qat.kernels.linear_spec import rows_spec

ISA = {isa.name: isa for isa in (*DOT_PRODUCTS, *ARM_DOT_PRODUCTS)}


def test_an_activation_that_a_later_step_reads_for_the_next_pixel_is_kept() -> None:
    # 12 channels, 4 a step: what a pixel reads in step i + 3, the next one has read in step i
    line = Line(ISA["avx512vnni"], 6, 4, 12, 36)
    assert line.body(3) == 6 * 4 + 4 + 1
    assert line.body(9) == 6 * 4 + 4 + 1 + 3 * 5


def test_the_first_layer_of_a_residual_network_fits_avx512() -> None:
    line = Line(ISA["avx512vnni"], 5, 4, 2 * 3, 7 * 3)
    assert line.body(6) == 5 * 4 + 4 + 1 + 6 < ISA["avx512vnni"].registers


def test_turns_are_as_many_steps_as_fit() -> None:
    assert [Line(ISA["avx512vnni"], 6, 4, apart, 5 * apart).unroll for apart in (64, 12, 8, 4)] == [
        4,
        3,
        2,
        1,
    ]


@pytest.mark.parametrize("name", ISA)
def test_a_long_sum_has_the_tile_of_its_descriptor(name: str) -> None:
    isa = ISA[name]
    pixels, vectors = isa.tiles[0]
    blocking = dot_blocking(isa, rows_spec(96, 256, 256, "OI"), 96, False)
    assert (blocking.pixels, blocking.channels) == (pixels, vectors * isa.lanes)


@pytest.mark.parametrize("name", ISA)
def test_a_sum_of_one_step_leaves_registers_for_its_epilogue(name: str) -> None:
    isa = ISA[name]
    for pixels, vectors in isa.tiles:
        count = pixels_of_line(isa, rows_spec(96, isa.depth, 256, "OI"), pixels, vectors)
        assert Line(isa, count, vectors, isa.depth, isa.depth).registers(1) <= isa.registers
