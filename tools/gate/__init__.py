"""What `python -m tools.compile_gate` is made of, one idea a file."""
