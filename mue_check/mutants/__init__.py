"""Mutants: right things with one mistake each, and the check that must catch each of them. They test the checks."""
