"""Questions and their answers: which cells a question needs next, and what the judge says of them.

The one room that both measures and judges; suites ask here, and reports judge again from what it leaves.
"""
