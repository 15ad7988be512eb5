"""What tests and benchmarks share: real processes, and the tables of runs, compared."""
