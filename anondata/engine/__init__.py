"""The loop that anonymizes, verifies and escalates, and what it asks at each step."""
