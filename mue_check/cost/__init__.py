"""The cost of a study before it is run: cells, FLOP, predicted seconds, and what fits into a budget."""
