"""An output is given away with a card and a manifest, and anybody can check it."""
