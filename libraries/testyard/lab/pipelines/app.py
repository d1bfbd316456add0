"""The service's HTTP interface, put together.

Source: document 002, "Required API Endpoints"; contract page "pipelines", 1.1.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final

from fastapi import FastAPI

from testyard.lab.pipelines import errors
from testyard.lab.pipelines.body_limit import BodyLimit
from testyard.lab.pipelines.channels import Dispatcher, EmailSender, SlackSender, WebhookSender, new_client
from testyard.lab.pipelines.database import open_pool
from testyard.lab.pipelines.execution import TemplateExecutor, abandon_run
from testyard.lab.pipelines.maintenance import heal_forever, send_forever
from testyard.lab.pipelines.migrate import migrate
from testyard.lab.pipelines.records import Channel
from testyard.lab.pipelines.routes import (
    api_keys,
    configurations,
    credentials,
    customers,
    notifications,
    operations,
    quotas,
    reports,
    runs,
    scheduler,
)
from testyard.lab.pipelines.runner import Runner
from testyard.lab.pipelines.service import Service
from testyard.lab.pipelines.settings import Settings
from testyard.lab.pipelines.store.clock import PatientClock

LARGEST_BODY: Final = 256 * 1024
"""Bytes of a request's body."""
CANCELLED_AGAIN_AFTER: Final = timedelta(milliseconds=200)
API_VERSION: Final = "1.0.0"

# Credentials and configurations first: their paths look like customers.
_ROUTES: Final = (
    *credentials.router.routes,
    *configurations.router.routes,
    *customers.router.routes,
    *api_keys.router.routes,
    *quotas.router.routes,
    *notifications.router.routes,
    *runs.router.routes,
    *scheduler.router.routes,
    *reports.router.routes,
    *operations.health_router.routes,
)


def create_app(settings: Settings) -> FastAPI:
    """The application. Its lifespan brings the database to this version, heals, and sends notifications.

    Args:
        settings: What it works with.

    Returns:
        The application, not yet started.

    Example:
        >>> application = create_app(settings)
        >>> async with application.router.lifespan_context(application):
        ...     await serve(application)
    """

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            application.state.service = await _start(settings, stack)
            yield

    application = FastAPI(
        title="Pipeline scheduling",
        version=API_VERSION,
        summary="Schedules pipelines of many customers within their quotas.",
        lifespan=lifespan,
        routes=[*_ROUTES, *(operations.clock_router.routes if settings.test_clock else [])],
    )
    application.add_middleware(BodyLimit, largest=LARGEST_BODY)
    errors.install(application)
    return application


async def _start(settings: Settings, stack: AsyncExitStack) -> Service:
    """Start the parts; the stack stops them."""
    name = f"api-{os.getpid()}"
    url = settings.database_url.get_secret_value()
    await migrate(url)
    pool = await stack.enter_async_context(
        open_pool(
            url,
            test_clock=settings.test_clock,
            size=settings.pool_size,
            application_name=name,
            timeout=settings.database_timeout,
        )
    )
    # A template that crashes must not take the interface along.
    runner = await stack.enter_async_context(
        Runner(pool, TemplateExecutor(abandon_run, PatientClock(pool)), name, stale_after=settings.stale_after)
    )
    client = await stack.enter_async_context(new_client())
    dispatcher = Dispatcher(
        pool,
        {
            Channel.EMAIL: EmailSender(settings.smtp),
            Channel.SLACK: SlackSender(client),
            Channel.WEBHOOK: WebhookSender(client),
        },
        retry_base=settings.notification_retry_base,
        attempts=settings.notification_attempts,
    )
    group = await stack.enter_async_context(asyncio.TaskGroup())
    tasks = [
        group.create_task(heal_forever(pool, settings.stale_after)),
        group.create_task(send_forever(dispatcher, settings.notification_retry_base)),
    ]
    stack.push_async_callback(_cancel, tasks)
    return Service(settings, pool, runner)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    psycopg waits with ``asyncio.wait_for``, which in Python 3.11 loses a cancellation that comes together with the
    answer (solved in 3.12): the task would go on for ever.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCELLED_AGAIN_AFTER.total_seconds())
