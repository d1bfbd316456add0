"""Drives the services of an event bus (document 004) by their HTTP interfaces, and measures them."""
