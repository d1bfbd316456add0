"""Processes of the lab that need not import anything: forked from one that has imported it already.

Importing what a service is made of takes one to two seconds of a processor; a copy of a process that has done so
is there after some milliseconds. ``multiprocessing``'s fork server does not serve: there is one per process and it
cannot be ended with a lab, it imports the caller's ``__main__`` again in each child, and it gives children no
standard streams.

``client`` is what a lab uses, ``__main__`` is the server, ``child`` is how a copy of it becomes a process of its
own, and ``request`` is what the first tells the second.
"""
