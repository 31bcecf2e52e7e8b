"""Scripts that made the bundled weights, kept as their provenance."""
