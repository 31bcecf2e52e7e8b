"""Publishes an output with a card and a manifest, so that anybody can check it."""
