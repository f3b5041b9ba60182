"""The command line: `gpuzip`, or `python -m gpuzip`. Needs typer and rich, the extra `cli`.

`app.py` declares the commands and imports nothing heavy, so that `--help` is fast; each command imports its
module when it runs.
"""
