"""Run-stacked reference models.

Shape suffixes: R runs, B sequences, T positions, M = B*T tokens, D width, V vocabulary, E experts,
F expert or feed-forward width, K activated experts. A model is a stack: every parameter and every
activation leads with R, and R = 1 is the plain model.
"""
