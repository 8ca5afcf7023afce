"""Routing: what a router claims, the variants by name, and the one form that every router's output is brought into."""
