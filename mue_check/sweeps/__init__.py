"""Sweeps that were made elsewhere: read tables of any common form, and judge them as the suites judge theirs.

``files`` reads files and folders, ``layouts`` makes one row per run, ``columns`` says what each column is, ``sweep``
makes loss curves, ``traps`` names what a table hides, ``judged`` judges, ``output`` shows. Nothing here imports torch.
"""
