"""Lists the comparisons that `python -m benchmarks` runs, with their goals."""
