"""`python -m gpuzip` is the command line."""

from gpuzip.cli.main import main

if __name__ == "__main__":
    main()
