"""Adapters around the engine for the libraries that datasets come from."""
