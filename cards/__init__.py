"""Documents made from run reports."""
