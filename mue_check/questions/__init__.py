"""Kinds of question, one file each: the cells they need, how they are judged, their tables and figures.

Both measures and judges. Suites ask here; reports judge the same comparisons again from the records.
"""
