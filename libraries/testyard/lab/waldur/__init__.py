"""A Waldur double: a stand-in for Waldur MasterMind, which no package manager installs.

It speaks the part of Waldur's REST interface and of its events that documents 000 and 001 need, with the real
server's rights, state machines and refusals (samples of 7.0.7, and what waldur-api-client 8.1.2 requires). Where
it departs from the samples, ``departures`` says why. One process is one instance:

* ``app``, ``routing``, ``rest``, ``represent``: the REST interface, by family of resources
* ``model``, ``store``, ``machines``, ``roles``, ``permissions``: the data, its states and the rights on it
* ``orders``, ``offering_users``, ``removal``: what changes more than one object
* ``events``, ``queues``: what is published, to whom, through ``testyard.lab.broker``
* ``faults``, ``journal``, ``control``, ``shell``: the tester's side
* ``instance``, ``server``, ``__main__``: the parts together, their sockets, the command
"""
