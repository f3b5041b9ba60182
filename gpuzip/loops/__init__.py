"""Loops compiled by numba, one file per operator: the faster path on a CPU if numba is installed."""
