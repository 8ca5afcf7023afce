"""Training set-ups with one mistake each, a right one, and the small mixture that they train."""
