"""Tables and figures of the sigma_0 section."""
