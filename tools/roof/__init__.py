"""What `python -m tools.roofline` is made of, one idea a file."""
