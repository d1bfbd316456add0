"""What a service provider's own agent does on Waldur B: accept each order and report it done.

No such agent (a SLURM agent, say) runs in a test; without one the orders that the site agent places on B
would wait for ever (document 000, AutoApproveWaldurBackend).
"""

from __future__ import annotations

from testyard.core.identifiers import hexadecimal
from testyard.core.json_client import UnexpectedAnswerError
from testyard.waldur.api import Waldur
from testyard.waldur.states import OrderState

WRONG_STATE = 409


class ApprovingProvider:
    """The provider of B's offering, who completes or refuses what is ordered: creation, update, termination.

    Args:
        waldur: Waldur B, as a user who may approve orders of the offering.
    """

    def __init__(self, waldur: Waldur) -> None:
        self._waldur = waldur

    def complete(self, order: str) -> None:
        """Accept a pending order and report it done; an order that has ended is left as it is."""
        path = f"marketplace-orders/{hexadecimal(order)}"
        try:
            self._waldur.post(f"{path}/approve_by_provider")
        except UnexpectedAnswerError as answer:
            # Asked only now, because nearly every order is pending.
            if answer.status != WRONG_STATE:
                raise
            if self._waldur.order(order).state is not OrderState.EXECUTING:
                return
        self._waldur.post(f"{path}/set_state_done")

    def reject(self, order: str, comment: str) -> None:
        """Refuse a pending order; the comment says why."""
        path = f"marketplace-orders/{hexadecimal(order)}/reject_by_provider"
        self._waldur.post(path, {"provider_rejection_comment": comment})

    def close(self) -> None:
        """Close the pooled connections."""
        self._waldur.close()
