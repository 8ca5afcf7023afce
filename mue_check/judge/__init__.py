"""From numbers to verdicts: optima, drifts, laws and intervals. Nothing here imports torch."""
