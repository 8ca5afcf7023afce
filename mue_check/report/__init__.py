"""Generic reports: tables, number formats, figure style, and sections as HTML page, Markdown and terminal text.

Nothing here depends on a kind of question, on training or on torch.
"""
