"""Loops compiled by numba, one file per operator: the faster CPU path if numba is installed."""
