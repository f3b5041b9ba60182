"""Every operation of a CPU beside every peer: `python -m bench.cpu`."""

from bench.races.cpu import lookup, search, starts, steps

RACES = [*search.RACES, *lookup.RACES, *steps.RACES, *starts.RACES]
