"""One search of codes, from its arguments to its answer."""
