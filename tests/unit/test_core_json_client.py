"""The JSON client's errors say who answered what, expected what, and never show a secret."""

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from testyard.core.errors import UserError
from testyard.core.json_client import (
    SHOWN_BODY_LENGTH,
    JsonClient,
    UnexpectedAnswerError,
    UnreachableError,
    trusted_certificates,
)
from testyard.core.redact import secrets_in_use

TOKEN = "beef0000beef1111beef2222beef3333beef4444"
JSON = "application/json"


class Server(ThreadingHTTPServer):
    """Answers every request with what a test wants to be answered, and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.will_answer(200, "{}")

    def will_answer(self, status: int, body: str | bytes, content_type: str = JSON, **headers: str) -> None:
        self.answer = (status, body.encode() if isinstance(body, str) else body, content_type, headers)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        status, content, content_type, headers = self.server.answer
        if not status:
            return  # closes the connection without a word
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):  # the base class looks for do_GET and the like
            return self.answer
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Nothing on the console."""


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running: Server) -> Server:
    running.will_answer(200, "{}")
    return running


@pytest.fixture(scope="module")
def client(running: Server) -> Iterator[JsonClient]:
    """One for the module, as its connections are pooled."""
    headers = {"Authorization": f"Token {TOKEN}"}
    with JsonClient(running.url, headers=headers, secret=TOKEN, name="Waldur A") as client:
        yield client


def client_of(url: str, **options: object) -> JsonClient:
    return JsonClient(url, **{"headers": {}, "secret": TOKEN, "name": "Waldur B"} | options)


# ---- what is sent


def test_the_headers_go_with_every_request(client, server):
    client.get("/api/users/me/")
    client.post("/api/customers/", {"name": "x"})
    assert [headers["Authorization"] for _, _, headers, _ in server.requests] == [f"Token {TOKEN}"] * 2


def test_query_parameters_are_sent_and_lists_repeat_their_name(client, server):
    client.get("/api/orders/", state=["done", "erred"], page=2)
    _, path, _, _ = server.requests[0]
    assert parse_qs(urlsplit(path).query) == {"state": ["done", "erred"], "page": ["2"]}


def test_a_get_without_parameters_has_no_question_mark(client, server):
    client.get("/api/orders/")
    assert server.requests[0][:2] == ("GET", "/api/orders/")


@pytest.mark.parametrize(("body", "sent"), [(None, b"{}"), ({"a": 1}, b'{"a":1}'), ([], b"[]")])
def test_a_post_always_carries_json(client, server, body, sent):
    client.post("/x", body)
    method, _, headers, content = server.requests[0]
    assert (method, headers["Content-Type"], content) == ("POST", JSON, sent)


def test_the_secret_is_masked_everywhere_from_now_on(client):
    assert secrets_in_use.mask(f"Token {TOKEN}") == "Token ***"


def test_a_lost_secret_is_refused_before_anything_is_sent(server):
    with pytest.raises(UserError, match="'<secret>'"):
        JsonClient(server.url, headers={"Authorization": "Token <secret>"}, secret=TOKEN, name="Waldur A")
    with pytest.raises(UserError, match="'<secret>'"):
        JsonClient(server.url, headers={}, secret="<secret>", name="Waldur A")
    assert server.requests == []


@pytest.mark.parametrize(
    "send",
    [
        lambda client: client.post("/x", {"token": "<secret>"}),
        lambda client: client.post("/x", {"deep": [{"header": "Token <secret>"}]}),
        lambda client: client.call("PUT", "/x", body="<secret>"),
        lambda client: client.get("/x", token="<secret>"),
        lambda client: client.get("/x", token=["fine", "<secret>"]),
    ],
    ids=["body", "deep in a body", "text", "query", "list in a query"],
)
def test_a_lost_secret_in_a_request_is_refused(client, server, send):
    with pytest.raises(UserError, match="'<secret>'"):
        send(client)
    assert server.requests == []


@pytest.mark.parametrize(
    "token", ["tök€n-that-nobody-may-see", "token-read-from-a-file\n"], ids=["not ASCII", "line end"]
)
def test_a_token_that_cannot_be_sent_is_a_users_mistake_and_not_shown(server, token):
    headers = {"Authorization": f"Token {token}"}
    with pytest.raises(UserError) as caught, client_of(server.url, headers=headers, secret=token) as client:
        client.get("/api/users/me/")
    assert "Waldur B" in str(caught.value)
    assert token.strip() not in str(caught.value)


def test_certificates_are_checked():
    context = trusted_certificates()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.get_ca_certs() != []


# ---- what comes back


def test_json_is_returned(client, server):
    server.will_answer(200, '[{"uuid": "1"}]')
    assert client.get("/x") == [{"uuid": "1"}]


@pytest.mark.parametrize("status", [200, 201, 204])
def test_an_empty_answer_is_none(client, server, status):
    server.will_answer(status, "")
    assert client.post("/x") is None


def test_send_returns_whatever_comes(client, server):
    server.will_answer(500, "down", "text/plain")
    response = client.send("PUT", "/x", body=[1])
    assert (response.status_code, response.text) == (500, "down")
    assert server.requests[0][3] == b"[1]"


# ---- errors


def test_an_unexpected_status_is_named_with_what_was_expected_and_the_answer(client, server):
    server.will_answer(400, '{"limits": ["nope is not allowed"]}')
    with pytest.raises(UnexpectedAnswerError) as caught:
        client.post("/api/marketplace-orders/")
    assert str(caught.value) == (
        "Waldur A answered 400 to POST /api/marketplace-orders/, expected 200 or 201 or 204: "
        '{"limits": ["nope is not allowed"]}'
    )
    assert caught.value.status == 400
    assert caught.value.body == '{"limits": ["nope is not allowed"]}'


def test_a_get_expects_200_only(client, server):
    server.will_answer(201, "{}")
    with pytest.raises(UnexpectedAnswerError, match=r"answered 201 to GET /x, expected 200:"):
        client.get("/x")


def test_the_expected_statuses_can_be_chosen(client, server):
    server.will_answer(409, '{"detail": "Order is done"}')
    assert client.call("POST", "/x", expect=(409,)) == {"detail": "Order is done"}


def test_a_redirect_is_not_followed_as_it_would_turn_a_post_into_a_get(client, server):
    server.will_answer(301, "", Location=f"{server.url}/elsewhere")
    with pytest.raises(UnexpectedAnswerError, match="answered 301"):
        client.post("/x")
    assert len(server.requests) == 1


def test_query_values_are_not_repeated_in_messages(client, server):
    server.will_answer(404, "{}")
    with pytest.raises(UnexpectedAnswerError) as caught:
        client.get("/x", token="whatever-was-asked")
    assert "whatever-was-asked" not in str(caught.value)


def test_a_long_answer_is_shortened(client, server):
    server.will_answer(500, "x" * 10_000, "text/plain")
    with pytest.raises(UnexpectedAnswerError) as caught:
        client.get("/x")
    assert len(caught.value.body) == SHOWN_BODY_LENGTH
    assert len(str(caught.value)) < SHOWN_BODY_LENGTH + 100


def test_an_answer_that_repeats_the_token_is_masked(client, server):
    server.will_answer(403, f'{{"detail": "Token {TOKEN} is not allowed"}}')
    with pytest.raises(UnexpectedAnswerError) as caught:
        client.get("/x")
    assert TOKEN not in str(caught.value)
    assert TOKEN not in caught.value.body
    assert "Token *** is not allowed" in caught.value.body


def test_a_token_across_the_place_where_an_answer_is_cut_is_masked(client, server):
    server.will_answer(500, "x" * (SHOWN_BODY_LENGTH - len(TOKEN) // 2) + TOKEN, "text/plain")
    with pytest.raises(UnexpectedAnswerError) as caught:
        client.get("/x")
    assert TOKEN[: len(TOKEN) // 2] not in str(caught.value)


@pytest.mark.parametrize("content_type", ["text/html", "text/html; charset=utf-8", "Text/HTML"])
def test_an_html_error_page_is_named_not_quoted(client, server, content_type):
    server.will_answer(502, "<html><body>Bad Gateway</body></html>", content_type)
    with pytest.raises(UnexpectedAnswerError) as caught:
        client.get("/x")
    assert str(caught.value) == "Waldur A answered 502 to GET /x, expected 200: an HTML page"


def test_html_instead_of_json_asks_whether_the_address_is_right(client, server):
    server.will_answer(200, "<!doctype html>", "text/html")
    with pytest.raises(UnexpectedAnswerError) as caught:
        client.get("/api/users/me/")
    assert str(caught.value) == (
        f"Waldur A answered GET /api/users/me/ with text/html, expected JSON. Is {server.url} the API's address?"
    )
    assert caught.value.status == 200
    assert caught.value.__cause__ is None


def test_broken_json_is_no_bare_decoding_error(client, server):
    server.will_answer(200, '{"uuid": ')
    with pytest.raises(UnexpectedAnswerError, match="expected JSON"):
        client.get("/x")


def test_an_answer_that_is_not_what_its_encoding_says_is_an_error_for_people(client, server):
    server.will_answer(200, b"this is no gzip", Content_Encoding="gzip")
    with pytest.raises(UserError, match="Waldur A"):
        client.get("/x")


def test_nobody_listening_is_named_with_address_and_reason():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with client_of(f"http://127.0.0.1:{port}") as client, pytest.raises(UnreachableError) as caught:
        client.get("/api/")
    assert str(caught.value).startswith(f"Waldur B at http://127.0.0.1:{port} cannot be reached: ")
    assert "Connection refused" in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_answer_that_does_not_come_in_time_is_unreachable():
    # Accepts the connection, as listening sockets do, and says nothing.
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        client_of(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=timedelta(milliseconds=50)) as client,
        pytest.raises(UnreachableError, match=r"cannot be reached: .*timed out"),
    ):
        client.get("/api/")


def test_a_connection_closed_without_an_answer_is_unreachable(client, server):
    server.will_answer(0, "")
    with pytest.raises(UnreachableError, match=r"Waldur A at .* cannot be reached: Server disconnected"):
        client.get("/x")


def test_an_address_without_a_scheme_is_named():
    expected = r"Waldur B at waldur\.example cannot be reached: .*http://"
    with client_of("waldur.example") as client, pytest.raises(UnreachableError, match=expected):
        client.get("/api/")


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "http://127.0.0.1:99999", "http://[::1"])
def test_an_address_that_is_none_is_a_users_mistake(url):
    with pytest.raises(UserError, match="Waldur B"), client_of(url) as client:
        client.get("/api/")


def test_leaving_the_client_closes_its_connections(server):
    with client_of(server.url) as client:
        client.get("/x")
    with pytest.raises(RuntimeError, match="closed"):
        client.get("/x")


def test_the_hook_for_tests_without_a_network_is_httpx_itself(monkeypatch):
    """Other tests give every client a transport in memory like this."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"path": request.url.path}))
    real = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: real(transport=transport, **options))
    with JsonClient("http://nowhere", headers={}, secret=TOKEN, name="Waldur A") as client:
        assert client.get("/api/") == {"path": "/api/"}
