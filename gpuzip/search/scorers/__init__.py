"""How rows are scored, one file for each kind of code."""
