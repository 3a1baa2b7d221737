"""Folding fake quantization into integer operators: `fold_into_qnn` and its rules by family."""
