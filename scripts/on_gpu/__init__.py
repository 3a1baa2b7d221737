"""The two halves of scripts/gpu_check: what is made where a compiler is, and run where a GPU is."""
