"""How services find each other: by Consul where there is one, else where they always are.

Source: document 004, section 3; contract page "event-bus", 3.10.
"""
