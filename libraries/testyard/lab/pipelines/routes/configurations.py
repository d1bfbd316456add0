"""Pipeline configurations: which pipeline runs when."""

from __future__ import annotations

from fastapi import APIRouter

from testyard.lab.pipelines import cron
from testyard.lab.pipelines.authentication import Customer
from testyard.lab.pipelines.cron import CronError
from testyard.lab.pipelines.errors import not_found, refusals, refused_field, with_body
from testyard.lab.pipelines.payloads import ConfigId, NewConfiguration
from testyard.lab.pipelines.records import Configuration
from testyard.lab.pipelines.routes import PREFIX
from testyard.lab.pipelines.service import ServiceOf
from testyard.lab.pipelines.store import configurations
from testyard.lab.pipelines.store.configurations import Wanted

router = APIRouter(prefix=f"{PREFIX}/customers/pipelines", tags=["pipelines"])


@router.post("/configure", responses=with_body(401))
async def configure(service: ServiceOf, owner: Customer, new: NewConfiguration) -> Configuration:
    """Make a configuration, or change the customer's one of the same pipeline."""
    _check_schedule(new)
    wanted = Wanted(
        provider=new.provider,
        domain=new.domain,
        template_name=new.template_name,
        schedule=new.schedule,
        timezone=new.timezone,
        priority=new.priority,
        default_parameters=new.default_parameters,
    )
    return await configurations.configure(service.pool, owner.customer_id, wanted)


@router.get("", responses=refusals(401))
async def find(service: ServiceOf, owner: Customer) -> list[Configuration]:
    """The customer's configurations, those that are not active too."""
    return await configurations.find(service.pool, owner.customer_id)


@router.get("/{config_id}", responses=refusals(401, 404))
async def read(service: ServiceOf, owner: Customer, config_id: ConfigId) -> Configuration:
    """One configuration."""
    return _found(await configurations.read(service.pool, owner.customer_id, config_id), config_id)


@router.delete("/{config_id}", responses=refusals(401, 404))
async def disable(service: ServiceOf, owner: Customer, config_id: ConfigId) -> Configuration:
    """Let a configuration make no more runs. It stays; configuring it again makes it active."""
    return _found(await configurations.disable(service.pool, owner.customer_id, config_id), config_id)


def _check_schedule(new: NewConfiguration) -> None:
    try:
        cron.validate("* * * * *", new.timezone)
    except CronError as error:
        raise refused_field("timezone", new.timezone, str(error)) from None
    try:
        cron.validate(new.schedule, new.timezone)
    except CronError as error:
        raise refused_field("schedule", new.schedule, str(error)) from None


def _found(configuration: Configuration | None, config_id: str) -> Configuration:
    if configuration is None:
        raise not_found("configuration", config_id)
    return configuration
