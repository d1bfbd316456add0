"""OnexTree: knows the files of a project, and what they say about a piece of work.

Source: document 004, section 3; contract page "event-bus", 3.9.
"""
