"""One history of what was attempted, acknowledged, received and stored, and what is wrong with it."""
