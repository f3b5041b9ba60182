"""Scorers, one file per kind of code."""
