"""Shared helpers: input matrices, argument checks, code planes, threads, devices."""
