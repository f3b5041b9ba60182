"""Rows in as few bytes as possible: entropy-coded, down to bit-exact."""
