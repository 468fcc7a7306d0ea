"""How fast amends is, beside what its parts allow. Run it with `python -m benchmarks`."""
