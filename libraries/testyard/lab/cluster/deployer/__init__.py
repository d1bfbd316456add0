"""The deployer: creates, reports, stops, starts and destroys one deployment, a verb per process.

It is our own stand-in for the deployer of the system that the workflow documents were written for (which needs
that system's images and a cloud account): the same verbs, state file, lock, states, transitions and health JSON
(contract 2.1, 2.7), but its nodes are those of the lab's datacentre. It reports states and owns only lab machines;
powering single nodes is the business of ``testyard.power``.

What the document leaves open is decided here:

* An operation that ended without finishing (its lock names a process that is no more, or is not there) counts as
  failed from the next operation on: ``deploy_in_progress`` becomes ``deployment_failed``, and so on. ``status``
  only reads: it names a stale lock and leaves it to the next operation.
* ``stop --services-only`` leaves ``stop_in_progress`` behind without a lock: ``health --update`` makes it
  ``stopped`` as soon as no node answers over SSH.
* While ``--wait-for`` waits, the state file is left alone; what is seen last is written. Otherwise nodes that come
  back one after the other would turn ``stopped`` into ``stop_failed`` on the way to ``database_ready``.
* The cluster stage that the contract calls d means here: the database answers and a node of it takes writes. A
  deployment without a database (``--database false``) is at stage d when everything else of it is fine.
* The lab has no SSH into a container (``cos_ssh``): a node's is fine when its database service is active, asked
  over SSH; without a database it is not counted. There are no data volumes (``volume_status`` is ``none``) and no
  Terraform, so their issues are never reported.
* A parameter that holds a credential is not kept: the lab makes its own.
"""
