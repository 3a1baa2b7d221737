"""The networks of the benchmark, made from seeds, and the runs over all of them; see scripts/bench."""
