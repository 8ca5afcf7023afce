"""What a study will cost before it is asked: FLOP, cells, predicted seconds, and what a budget leaves of it."""
