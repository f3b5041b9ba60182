"""What `python -m bench.compile_gate` is made of, one idea a file."""
