"""Measurements of Towpath. `bench/run` prints them all as one table."""
