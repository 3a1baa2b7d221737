"""Kernels for NVIDIA GPUs: the same operators, formulas and bits, one thread an element, or tensor cores."""
