"""Attacks what a tool wrote, and says who can still be named in it."""
