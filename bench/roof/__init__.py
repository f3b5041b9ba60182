"""What `python -m bench.roofline` is made of, one idea a file."""
