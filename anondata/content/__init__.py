"""Content types: what the engine needs to know about a modality, and no more."""
