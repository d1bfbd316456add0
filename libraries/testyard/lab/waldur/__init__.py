"""A Waldur double: a stand-in for Waldur MasterMind, which no package manager installs.

It speaks the part of Waldur's REST interface and of its events that documents 000 and 001 need, with the real
server's rights, state machines and refusals (samples of 7.0.7, and what waldur-api-client 8.1.2 requires). One
process is one instance:

* ``app``, ``routing``, ``rest``, ``represent``: the REST interface, by family of resources
* ``model``, ``store``, ``machines``, ``roles``, ``permissions``: the data, its states and the rights on it
* ``orders``, ``offering_users``, ``removal``: what changes more than one object
* ``events``, ``queues``: what is published, to whom, through ``testyard.lab.broker``
* ``faults``, ``journal``, ``control``, ``shell``: the tester's side
* ``instance``, ``server``, ``__main__``: the parts together, their sockets, the command

Where it departs from what was recorded, on purpose (the contract tests' own table says so sample by sample):

* approving and rejecting an order answer ``detail``: the recorded body is empty, today's client requires the key
* a resource's ``creation_order`` is the order as it is now, the recorded one as it was created
* ``backend_metadata`` and SLURM endpoints: the double has no SLURM plug-in
* ``roles`` filters by name, which 7.0.7 ignores: the agent takes the first role of the answer
* OFFERING.MANAGER has the permissions that the agent needs beyond 7.0.7 (``roles.ADDED_SINCE``)
* a team's roles have full names (``PROJECT.MANAGER``), as the agent's role mapping expects
* queues know the object types that came after the recording
"""
