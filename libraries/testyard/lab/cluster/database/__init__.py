"""A replicated PostgreSQL of real servers, one on each node: primary and standbys, synchronous, with fail-over.

Three parts, in three kinds of processes:

* ``template``: what every node's disk has before it boots first, a fresh database cluster; made once.
* ``agent``: in the process of each node; runs the node's PostgreSQL and does what the manager asks.
* ``manager``: one per cluster; polls the agents, elects a primary and hands out its lease.

Why no acknowledged write is lost. A commit is acknowledged when the primary and ``members // 2`` standbys have it
on disk (``synchronous_standby_names``, in force on every member at all times), so a majority has. An election
first makes a majority of members stop to receive, and only then reads how far each has come; any such majority
has a member in common with the one that has the commit. Members compare the term of the promotion that their last
WAL comes from, then the position in the WAL, as Raft does ("In Search of an Understandable Consensus Algorithm",
section 5.4.1): timeline numbers alone do not do, as two members can have been promoted to the same one.

Nothing keeps an isolated primary from accepting a connection, but nobody acknowledges its commits, and its lease
runs out: then it is restarted as a standby, so that writes fail there and reads go on.
"""
