"""Cases that are timed beside other libraries: a file per kind, a function per group of cases."""
