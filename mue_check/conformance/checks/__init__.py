"""The checks, one file per theme; the registry lists them in the order in which they run."""
