"""Plain loops compiled by numba, one file an operator: the faster road on a CPU, where numba is installed."""
