"""The metadata stamping service: hashes files by BLAKE3, stamps them, and finds stamps again.

Source: document 004, section 2; contract page "event-bus", 3.8.
"""
