"""Reading a request body, with the messages of Django REST framework for what is wrong with it."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from testyard.lab.waldur.exchange import ApiError
from testyard.lab.waldur.identifiers import parse_identifier
from testyard.lab.waldur.model import Entity
from testyard.lab.waldur.store import EntityT

REQUIRED = "This field is required."
BLANK = "This field may not be blank."
NULL = "This field may not be null."
NO_OBJECT = "Invalid hyperlink - Object does not exist."
NO_MATCH = "Invalid hyperlink - No URL match."


class Payload:
    """A JSON object whose fields are read one by one; ``check`` refuses the request if any was wrong.

    Example:
        >>> payload = Payload({"name": ""})
        >>> name = payload.text("name", required=True, blank=False)
        >>> payload.check()  # raises ApiError 400 {"name": ["This field may not be blank."]}
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._errors: dict[str, list[str]] = {}
        self._assignments: list[Callable[[], None]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def check(self) -> None:
        """Refuse with 400 and all messages so far, if there are any; else do what was assigned."""
        if self._errors:
            raise ApiError(400, self._errors)
        for assignment in self._assignments:
            assignment()
        self._assignments.clear()

    def assign(self, entity: Entity, attribute: str, value: object) -> None:
        """Set an attribute when ``check`` finds the whole body in order: a refused change changes nothing."""
        self._assignments.append(partial(setattr, entity, attribute, value))

    def put(self, mapping: dict[str, Any], key: str, value: object) -> None:
        """As ``assign``, for an entry of a dictionary."""
        self._assignments.append(partial(mapping.__setitem__, key, value))

    def fail(self, name: str, message: str) -> None:
        """Add a message of one's own."""
        self._errors.setdefault(name, []).append(message)

    def raw(self, name: str, *, required: bool = False, nullable: bool = True) -> Any:
        """The value as it came, or None."""
        if name not in self._data:
            if required:
                self.fail(name, REQUIRED)
            return None
        value = self._data[name]
        if value is None and not nullable:
            self.fail(name, NULL)
        return value

    def text(self, name: str, default: str = "", *, required: bool = False, blank: bool = True) -> str:
        """A string that may not be null."""
        if name not in self._data:
            if required:
                self.fail(name, REQUIRED)
            return default
        value = self._data[name]
        if value is None:
            self.fail(name, NULL)
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            self.fail(name, "Not a valid string.")
        else:
            text = str(value).strip()
            if text or blank:
                return text
            self.fail(name, BLANK)
        return default

    def optional_text(self, name: str, default: str | None = None) -> str | None:
        """A string or null."""
        return None if self._data.get(name, "") is None else (self.text(name, default or "") or default)

    def date(self, name: str, default: str | None = None) -> str | None:
        """A calendar date as ``2030-12-31``, or null."""
        text = self.optional_text(name, default)
        try:
            return date.fromisoformat(text).isoformat() if text else None
        except ValueError:
            self.fail(name, "Date has wrong format. Use one of these formats instead: YYYY-MM-DD.")
            return default

    def moment(self, name: str) -> datetime | None:
        """An instant in ISO 8601, or null; without a zone it is UTC."""
        text = self.optional_text(name)
        try:
            instant = datetime.fromisoformat(text) if text else None
        except ValueError:
            self.fail(name, "Datetime has wrong format. Use one of these formats instead: YYYY-MM-DDThh:mm[:ss].")
            return None
        return instant.replace(tzinfo=instant.tzinfo or UTC) if instant else None

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self._data.get(name, default)
        if not isinstance(value, bool):
            self.fail(name, "Must be a valid boolean.")
            return default
        return value

    def number(self, name: str, *, required: bool = False) -> float | None:
        """A number, also as a string, as DRF takes decimals."""
        value = self.raw(name, required=required)
        if value is None:
            return None
        try:
            return float(value)
        except (TypeError, ValueError):
            self.fail(name, "A valid number is required.")
            return None

    def mapping(self, name: str) -> dict[str, Any]:
        """A JSON object; absent is empty."""
        value = self._data.get(name, {})
        if value is None:
            self.fail(name, NULL)
        elif not isinstance(value, dict):
            self.fail(name, f'Expected a dictionary of items but got type "{type(value).__name__}".')
        else:
            return dict(value)
        return {}

    def texts(self, name: str) -> list[str]:
        """A list of strings; absent is empty."""
        value = self._data.get(name, [])
        if not isinstance(value, list):
            self.fail(name, f'Expected a list of items but got type "{type(value).__name__}".')
            return []
        if not all(isinstance(item, str) for item in value):
            self.fail(name, "Not a valid string.")
            return []
        return list(value)

    def mappings(self, name: str) -> list[dict[str, Any]]:
        """A list of JSON objects; absent is empty."""
        value = self._data.get(name, [])
        if not isinstance(value, list):
            self.fail(name, f'Expected a list of items but got type "{type(value).__name__}".')
            return []
        if not all(isinstance(item, dict) for item in value):
            self.fail(name, "Invalid data. Expected a dictionary.")
            return []
        return list(value)

    def choice(self, name: str, choices: list[str], default: str) -> str:
        """One of a fixed set of strings."""
        value = self._data.get(name, default)
        if value not in choices:
            self.fail(name, f'"{value}" is not a valid choice.')
            return default
        return str(value)

    def link(self, name: str, *collections: str, required: bool = True) -> str | None:
        """The UUID in a hyperlink to one of the collections; a bare UUID is taken too.

        Args:
            name: Field.
            *collections: First path segments that the link may have, e.g. ``projects``.
            required: Whether an absent or null field is an error.
        """
        value = self.raw(name, required=required, nullable=not required)
        if value is None:
            return None
        if not isinstance(value, str):
            self.fail(name, f"Incorrect type. Expected URL string, received {type(value).__name__}.")
            return None
        bare = parse_identifier(value)
        if bare:
            return bare
        segments = value.rstrip("/").split("/")
        found = parse_identifier(segments[-1])
        if found is None or len(segments) < 2 or not set(segments).intersection(collections):
            self.fail(name, NO_MATCH)
            return None
        return found

    def linked(
        self,
        name: str,
        collections: tuple[str, ...],
        find: Callable[[str], EntityT | None],
        *,
        required: bool = True,
    ) -> EntityT | None:
        """The object behind a hyperlink; one that ``find`` does not give is reported as not existing."""
        identifier = self.link(name, *collections, required=required)
        if identifier is None:
            return None
        found = find(identifier)
        if found is None:
            self.fail(name, NO_OBJECT)
        return found
