"""Conversions to and from other libraries, each imported on demand."""
