"""Routing: the claim of a router, the built-in variants, and one form into which every router's return is read."""
