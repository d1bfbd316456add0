"""What can be wrong when machines are stopped, started, crashed or restarted; each is one line for people.

Where the documents name a Python class (contract "cluster", 2.1), the error is one of that class too.
"""

from __future__ import annotations

from testyard.core.errors import UserError


class DeploymentError(UserError, RuntimeError):
    """The deployment directory is not what a deployer writes."""


class MissingDeploymentError(DeploymentError):
    """There is no deployment in the directory (any more)."""


class UnknownNodeError(DeploymentError):
    """The deployment has no node of that name."""


class UnsupportedOperationError(UserError, NotImplementedError):
    """The document's table says no for this provider and operation."""


class UnknownMethodError(UserError, ValueError):
    """A step has no such method."""


class WrongStateError(UserError):
    """The node is in a state from which the operation does not start."""


class ProtectedMachineError(UserError):
    """The target is, or may be, the machine that the tests run on."""


class HostKeyError(UserError):
    """A node's host key is not the one in the deployment's known_hosts."""


class LoginRefusedError(UserError):
    """A node's SSH server answers, and does not let the user in."""


class NodeUnreachableError(UserError):
    """A node does not answer over SSH."""


class AbandonedError(UserError):
    """The wait was given up because another part of the same operation was interrupted."""
