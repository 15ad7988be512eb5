"""What tests and benchmarks share: real processes, and the tables that runs end in, compared."""
