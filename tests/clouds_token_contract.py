"""What holds besides for the providers that take one bearer token, and answer a power call with an action."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

import pytest
from clouds_contract import ACTIONS, LASTING, PowerContract, open_provider
from clouds_support import ServedCloud
from testyard.core.deadline import Deadline, wait_until
from testyard.core.errors import UserError
from testyard.lab.clouds.machines import MachineState
from testyard.power.protocol import PowerProvider, PowerState

WITHIN = timedelta(seconds=10)
OPERATIONS = ACTIONS
# Where a machine is before each operation, and what that does to it.
BEFORE = {"start": MachineState.STOPPED, "stop": MachineState.RUNNING, "crash": MachineState.RUNNING}
DONE = {"start": "power_on", "stop": "press", "crash": "power_off"}


def until_done(cloud: Any, *actions: tuple[str, str]) -> None:
    """Wait until exactly this was done to the machines."""
    wait_until(
        lambda: list(cloud.machines.actions),
        lambda found: found == list(actions),
        Deadline(WITHIN),
        f"the machines' actions {actions}",
    )


class TokenContract(PowerContract):
    """Tests of one provider; a subclass says which."""

    # The setting that has the API's address.
    endpoint: ClassVar[str]
    # What the API says when an action runs already.
    busy: ClassVar[str]

    @pytest.mark.parametrize("value", ["a token of two words", "0123456789\n", "törichtes-token"])
    def test_a_token_that_cannot_be_one_is_refused(self, cloud: ServedCloud, value: str) -> None:
        with pytest.raises(UserError, match=f"^{self.credential} cannot be") as caught:
            open_provider(self.provider, cloud.settings | {self.credential: value})
        assert value not in str(caught.value)

    def test_a_token_does_not_cross_a_network_in_clear(self, cloud: ServedCloud) -> None:
        with pytest.raises(UserError, match=f"^{self.endpoint}.*in clear"):
            open_provider(self.provider, cloud.settings | {self.endpoint: "http://cloud.example/v1"})

    def test_an_address_that_is_none_is_refused(self, cloud: ServedCloud) -> None:
        with pytest.raises(UserError, match=f"^{self.endpoint} is 'cloud.example'"):
            open_provider(self.provider, cloud.settings | {self.endpoint: "cloud.example"})

    def test_a_second_action_while_one_runs_is_refused(self, cloud: ServedCloud, power: PowerProvider) -> None:
        assert power.state(self.instance()) is PowerState.RUNNING
        cloud.account.delay = LASTING
        power.stop(self.instance())
        with pytest.raises(UserError, match=self.busy):
            power.crash(self.instance())
        assert cloud.machines.actions == [("press", "n12")]
        cloud.account.delay = timedelta()
        cloud.machines.put("n12", MachineState.STOPPED)
        assert power.state(self.instance()) is PowerState.STOPPED

    def test_an_action_that_fails_is_told_once(self, cloud: ServedCloud, power: PowerProvider) -> None:
        cloud.machines.put("n12", MachineState.STOPPED)
        power.start(self.instance())
        cloud.machines.put("n12", MachineState.STOPPED)
        with pytest.raises(UserError, match=r"n12.*(error|failed)"):
            power.state(self.instance())
        assert power.state(self.instance()) is PowerState.STOPPED
