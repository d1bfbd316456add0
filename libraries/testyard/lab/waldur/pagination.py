"""Lists: pages, the ``Link`` and ``X-Result-Count`` headers, and the ``field`` filter.

Sources: samples ``orders_list``, ``orders_filter_multi_state``, ``roles_filter_name``,
``provider_resources_filtered_fields``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlencode

from testyard.lab.waldur.exchange import JSON_TYPE, ApiError, Reply, Request, parse_query, to_json

DEFAULT_PAGE_SIZE = 10
LARGEST_PAGE_SIZE = 300

RowT = TypeVar("RowT")


def listing(
    request: Request,
    rows: Sequence[RowT],
    render: Callable[[RowT], dict[str, Any]],
    serialise: Callable[[Sequence[RowT]], list[bytes]] | None = None,
) -> Reply:
    """Answer one page of a list.

    Args:
        request: Its parameters ``page``, ``page_size`` and ``field`` are taken into account.
        rows: All rows that the caller may see and asked for, in order.
        render: Makes the JSON object of a row.
        serialise: Gives the serialised JSON objects of some rows; used when no ``field`` is asked for.

    Raises:
        ApiError: 404 for a page that does not exist.
    """
    size = _page_size(request)
    last = max(1, -(-len(rows) // size))
    page = _page(request, last)
    chosen = rows[(page - 1) * size : page * size]
    if serialise is not None and "field" not in request.query:
        body = _array(serialise(chosen))
    else:
        body = to_json([selected(request, render(row)) for row in chosen])
    return Reply(
        200,
        body,
        [
            JSON_TYPE,
            (b"x-result-count", str(len(rows)).encode()),
            (b"link", _links(request.base + request.path, request.query_string, page, last)),
        ],
    )


def selected(request: Request, value: dict[str, Any]) -> dict[str, Any]:
    """Keep the keys that the ``field`` parameters name, in the object's own order; all if there are none."""
    fields = request.query.get("field")
    return {key: item for key, item in value.items() if key in fields} if fields else value


def _page_size(request: Request) -> int:
    try:
        size = int(request.parameter("page_size") or DEFAULT_PAGE_SIZE)
    except ValueError:
        return DEFAULT_PAGE_SIZE
    return min(size, LARGEST_PAGE_SIZE) if size > 0 else DEFAULT_PAGE_SIZE


def _page(request: Request, last: int) -> int:
    text = request.parameter("page") or "1"
    if text == "last":
        return last
    if not text.isdecimal() or not 1 <= int(text) <= last:
        raise ApiError(404, {"detail": "Invalid page."})
    return int(text)


def _array(items: list[bytes]) -> bytes:
    """A JSON array; one ``join``, because copying a large body twice costs as much as finding it."""
    parts = [b","] * (2 * len(items) + 1)
    parts[1::2] = items
    parts[0] = b"["
    if items:
        parts[-1] = b"]"
    else:
        parts.append(b"]")
    return b"".join(parts)


@lru_cache(maxsize=256)
def _links(address: str, query_string: bytes, page: int, last: int) -> bytes:
    query = parse_query(query_string)
    links = [_link(address, query, 1, "first")]
    if page > 1:
        links.append(_link(address, query, page - 1, "prev"))
    if page < last:
        links.append(_link(address, query, page + 1, "next"))
    links.append(_link(address, query, last, "last"))
    return ", ".join(links).encode("latin-1")


def _link(address: str, query: Mapping[str, Sequence[str]], page: int, relation: str) -> str:
    parameters = {name: values for name, values in query.items() if name != "page"}
    if page > 1:
        parameters["page"] = [str(page)]
    text = urlencode([(name, value) for name in sorted(parameters) for value in parameters[name]])
    return f'<{address}{"?" if text else ""}{text}>; rel="{relation}"'
