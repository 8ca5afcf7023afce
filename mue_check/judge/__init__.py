"""How numbers become verdicts. No torch here: records in, verdicts out."""
