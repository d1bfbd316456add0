"""A process that is nothing but a member's database agent; it ends when its standard input does."""

from __future__ import annotations

import asyncio
import sys

from testyard.lab.cluster.database.agent import Agent
from testyard.lab.cluster.database.plan import MemberPlan


async def serve() -> None:
    """Read the plan, then serve until the input ends."""
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    agent = Agent(MemberPlan.model_validate_json(await reader.readline()))
    await agent.open()
    try:
        await agent.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while command := await reader.readline():
            await (agent.start() if command == b"start\n" else agent.stop())
            sys.stdout.write("done\n")
            sys.stdout.flush()
    finally:
        await agent.close()


def main() -> int:
    """Run it; gives the exit status."""
    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
