"""Content types: what the engine needs to know about a modality, and no more."""

MAX_PIXELS = 178_956_970
"""Larger pictures are withheld by default: where Pillow refuses by default, above any camera but the 200 MP phones,
and 0.5 GiB as RGB (decoding peaks at two to four times that)."""
