"""A study folder: the questions that were asked, the cells that answer them, and what the cells cost."""
