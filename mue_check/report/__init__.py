"""Generic reports: tables, number formats, figure style, and sections as HTML page, Markdown and terminal text.

Knows no question. No training, no torch.
"""
