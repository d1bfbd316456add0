"""The routes of the service, by what they are about."""

from typing import Final

PREFIX: Final = "/api/v1"
"""With which each path begins. Routers have it from the start: including them in one builds their routes twice."""
