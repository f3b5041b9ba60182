"""Plain loops compiled by numba, one file an operator: the faster path on a CPU, where numba is installed."""
