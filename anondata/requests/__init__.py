"""A client asks for samples of a dataset and gets a publication of its own, charged once."""
