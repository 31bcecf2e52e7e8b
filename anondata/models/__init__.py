"""The networks that anondata runs, and the registry of their weights."""
