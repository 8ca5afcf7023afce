"""A user's router in the mixtures of a reference model: loaded, examined, called for all runs at once."""
