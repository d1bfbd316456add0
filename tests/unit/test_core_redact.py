"""No registered secret is left in anything that is logged, whoever logs it and however."""

import io
import logging
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from testyard.core.errors import UserError
from testyard.core.redact import MASK, SHORTEST, SecretRegistry, mask_log_records, refuse_placeholder

TOKEN = "c0ffee00c0ffee11c0ffee22c0ffee33c0ffee44"

# Few letters, so that secrets overlap and contain one another often.
SECRETS = st.text("ab0", min_size=SHORTEST, max_size=SHORTEST + 4)
NOISE = st.text("ab0 :\n'\\", max_size=6)


@pytest.fixture
def registry() -> SecretRegistry:
    registry = SecretRegistry()
    registry.add(TOKEN)
    return registry


@pytest.fixture
def masked_logging(registry: SecretRegistry) -> Iterator[SecretRegistry]:
    """Log records are masked for the test, by a registry of its own."""
    kept = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    mask_log_records(registry)
    yield registry
    logging.setLogRecordFactory(kept)


class Records(logging.Handler):
    """Keeps what handlers get, and what it looks like once formatted."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.records.append(record)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def logger(masked_logging: SecretRegistry) -> Iterator[logging.Logger]:
    """A logger that does not propagate, as third parties have them."""
    logger = logging.getLogger("thirdparty.transport")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def seen(logger: logging.Logger) -> Iterator[Records]:
    records = Records()
    logger.addHandler(records)
    yield records
    logger.removeHandler(records)


# ---- texts


@settings(deadline=None)
@given(st.lists(SECRETS, min_size=1, max_size=5), st.data())
def test_no_registered_secret_is_left_in_a_text(secrets, data):
    registry = SecretRegistry()
    for secret in secrets:
        registry.add(secret)
    parts = data.draw(st.lists(st.sampled_from(secrets) | NOISE, max_size=8))
    masked = registry.mask("".join(parts))
    assert not [secret for secret in secrets if secret in masked]


@settings(deadline=None)
@given(st.text())
def test_a_text_without_secrets_is_left_as_it_is(text):
    registry = SecretRegistry()
    assert registry.mask(text) == text
    registry.add("never in the text " * 3)
    assert registry.mask(text) == text


@pytest.mark.parametrize("order", [1, -1])
def test_the_longer_of_two_secrets_is_masked_whole(order):
    registry = SecretRegistry()
    for secret in ("abcdefgh", "abcdefgh-the-rest", "xx-abcdefgh")[::order]:
        registry.add(secret)
    assert registry.mask("1 abcdefgh-the-rest 2 abcdefgh 3 xx-abcdefgh 4") == "1 *** 2 *** 3 *** 4"


def test_every_occurrence_is_masked_also_within_words(registry):
    assert registry.mask(f"{TOKEN}{TOKEN} x{TOKEN}y") == f"{MASK}{MASK} x{MASK}y"


@pytest.mark.parametrize("secret", [".*.*.*.*", "a|b|c|d|e", "(unclosed", "[a-z]{3}\\", "new\nline\ttab"])
def test_secrets_are_no_patterns(secret):
    registry = SecretRegistry()
    registry.add(secret)
    assert registry.mask(f"<{secret}>") == "<***>"
    assert registry.mask("nothing of the sort") == "nothing of the sort"


def test_short_values_are_not_masked_as_they_would_hide_innocent_words():
    registry = SecretRegistry()
    registry.add("", "a", "x" * (SHORTEST - 1))
    assert registry.mask("a xxxxxxx banana") == "a xxxxxxx banana"
    registry.add("y" * SHORTEST)
    assert registry.mask("y" * SHORTEST) == MASK
    assert registry.mask("a banana") == "a banana"


def test_a_value_that_comes_later_is_masked_too(registry):
    assert registry.mask(f"{TOKEN} a-newer-token") == f"{MASK} a-newer-token"
    registry.add(TOKEN, "short", "a-newer-token")
    assert registry.mask(f"{TOKEN} a-newer-token short") == f"{MASK} {MASK} short"


def test_a_text_that_was_masked_just_before_is_looked_at_again_for_a_new_value():
    registry = SecretRegistry()
    registry.add("an-old-secret")
    text = registry.mask("a-new-secret beside an-old-secret")
    assert registry.mask(text) is text
    registry.add("a-new-secret")
    assert registry.mask(text) == "*** beside ***"


def test_a_value_in_another_does_not_leave_the_rest_of_it(registry):
    registry.add("a-token-and-more", "a-token-")
    assert registry.mask("a-token-and-more a-token-") == f"{MASK} {MASK}"


def test_secrets_can_be_added_while_others_mask():
    registry = SecretRegistry()
    secrets = [f"secret-{number:04}" for number in range(150)]
    left: list[str] = []

    def add_and_mask(mine: list[str]) -> None:
        for secret in mine:
            registry.add(secret)
            left.append(registry.mask(f"token {secret}"))

    threads = [threading.Thread(target=add_and_mask, args=(secrets[start::3],)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left == [f"token {MASK}"] * len(secrets)
    assert registry.mask(" ".join(secrets)) == " ".join([MASK] * len(secrets))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"Arguments: [ {TOKEN[:20]}...", "Arguments: [ ***..."),
        (f"Arguments: [ {TOKEN[:-1]}...", "Arguments: [ ***..."),
        (f"Arguments: [ {TOKEN[:SHORTEST]}...", "Arguments: [ ***..."),
        (f"Arguments: [ {TOKEN}...", "Arguments: [ ***..."),
        (f"{TOKEN} and {TOKEN[:20]}...", "*** and ***..."),
        ("waiting...", "waiting..."),
        ("...", "..."),
        ("", ""),
        (f"whole {TOKEN}", "whole ***"),
        # Without the dots nothing was cut.
        (TOKEN[:20], TOKEN[:20]),
    ],
)
def test_a_message_that_was_cut_within_a_secret_is_masked(registry, text, masked):
    assert registry.mask_message(text) == masked


def test_of_two_secrets_that_begin_alike_nothing_is_left_at_a_cut():
    registry = SecretRegistry()
    registry.add("beginning-one-way", "beginning-another-way")
    for secret in ("beginning-one-way", "beginning-another-way"):
        for length in range(SHORTEST, len(secret)):
            assert registry.mask_message(f"x {secret[:length]}...") == "x ***..."


# ---- the placeholder that Robot Framework leaves where a Secret was


@pytest.mark.parametrize("text", ["<secret>", "Token <secret>", "a<secret>b"])
def test_a_lost_secret_is_refused_with_the_way_out(text):
    with pytest.raises(UserError) as caught:
        refuse_placeholder(text)
    assert "'<secret>'" in str(caught.value)
    assert "'${name: Secret}'" in str(caught.value)
    with pytest.raises(UserError):
        SecretRegistry().add("good-enough-token", text)


@pytest.mark.parametrize("text", ["", TOKEN, "secret", "<SECRET>", "< secret >"])
def test_other_texts_are_not_taken_for_the_placeholder(text):
    refuse_placeholder(text)


# ---- values that are no texts


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        (TOKEN, MASK),
        (f"passcode:{TOKEN}".encode(), b"passcode:***"),
        ({"token": TOKEN, "n": 1}, {"token": MASK, "n": 1}),
        ([TOKEN, [TOKEN]], [MASK, [MASK]]),
        ((b"STOMP", f"passcode:{TOKEN}".encode()), (b"STOMP", b"passcode:***")),
        ({"headers": {"Authorization": [f"Token {TOKEN}"]}}, {"headers": {"Authorization": ["Token ***"]}}),
        (ValueError(f"bad {TOKEN}"), "ValueError: bad ***"),
        (None, None),
        (42, 42),
    ],
)
def test_values_are_masked_inside_and_keep_their_form(registry, value, masked):
    assert registry.mask_value(value) == masked


def test_a_mapping_is_masked_in_a_copy_as_its_owner_still_needs_it(registry):
    headers = {"token": TOKEN, "list": [TOKEN]}
    registry.mask_value(headers)
    assert headers == {"token": TOKEN, "list": [TOKEN]}


@pytest.mark.parametrize(
    "value",
    [{TOKEN: "key"}, {"deep": {f"Token {TOKEN}": 1}}, {TOKEN}, frozenset({TOKEN})],
    ids=["key", "deep key", "set", "frozen set"],
)
def test_keys_and_sets_are_masked_too(registry, value):
    assert TOKEN not in str(registry.mask_value(value))


def test_named_tuples_are_masked_and_keep_their_form(registry):
    address = namedtuple("Address", "scheme query")  # noqa: PYI024 urllib.parse's results are such
    masked = registry.mask_value(address("https", f"token={TOKEN}"))
    assert masked == address("https", "token=***")
    assert masked.query == "token=***"


# ---- log records


def test_a_message_and_its_arguments_are_masked(logger, seen):
    logger.info("Authorization: Token %s for %d s", TOKEN, 5)
    logger.info(f"in the message itself: {TOKEN}")
    logger.info("by name: %(token)s", {"token": TOKEN})
    assert seen.lines == ["Authorization: Token *** for 5 s", "in the message itself: ***", "by name: ***"]


def test_the_frames_that_stomp_prints_are_masked(logger, seen):
    # stomp.py 8.2 and 9.0 log every outgoing frame as a list of bytes at DEBUG, the passcode's line included.
    logger.debug("sending frame: %s", [b"STOMP\n", b"login:me\n", f"passcode:{TOKEN}\n".encode()])
    assert TOKEN not in seen.text
    assert "login:me" in seen.text


def test_records_hold_no_secret_for_handlers_that_do_not_format(logger, seen):
    logger.warning("Token %s", TOKEN)
    record = seen.records[0]
    assert TOKEN not in repr(vars(record))
    assert record.getMessage() == "Token ***"


def test_records_whose_message_is_a_mapping_stay_mappings(logger, seen):
    # structlog's ProcessorFormatter.wrap_for_formatter hands its event over like this.
    event = {"event": f"POST with {TOKEN}", "level": "error", "headers": {"Authorization": f"Token {TOKEN}"}}
    logger.error(event, extra={"_logger": logger, "_name": "error"})
    record = seen.records[0]
    assert record.msg == {"event": "POST with ***", "level": "error", "headers": {"Authorization": "Token ***"}}
    assert TOKEN not in seen.text
    assert TOKEN in event["event"]


def test_what_structlog_logs_is_masked_as_the_agent_sets_it_up(logger, seen):
    wrapped = structlog.wrap_logger(
        logger,
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
    )
    formatter = structlog.stdlib.ProcessorFormatter(processor=structlog.processors.JSONRenderer())
    seen.setFormatter(formatter)
    try:
        raise ValueError(f"refused {TOKEN}")
    except ValueError:
        wrapped.exception("Unable to process", token=TOKEN)
    assert "Unable to process" in seen.text
    assert f"ValueError: refused {MASK}" in seen.text
    assert TOKEN not in seen.text


def test_tracebacks_are_masked_with_their_causes(logger, seen):
    try:
        try:
            raise OSError(f"cannot reach https://user:{TOKEN}@example")
        except OSError as cause:
            raise RuntimeError(f"giving up on {TOKEN}") from cause
    except RuntimeError:
        logger.exception("failed")
    assert TOKEN not in seen.text
    assert "RuntimeError: giving up on ***" in seen.text
    assert "OSError: cannot reach https://user:***@example" in seen.text
    assert "Traceback (most recent call last)" in seen.text


def test_an_exception_as_the_message_is_masked(logger, seen):
    logger.error(ValueError(f"refused {TOKEN}"))
    assert seen.lines == ["refused ***"]


def test_exc_info_without_an_exception_is_harmless(logger, seen):
    logger.error("nothing was raised", exc_info=True)
    assert seen.lines[0].startswith("nothing was raised")


def test_secrets_registered_later_are_masked_from_then_on(masked_logging, logger, seen):
    logger.info("a-later-secret")
    masked_logging.add("a-later-secret")
    logger.info("a-later-secret")
    assert seen.lines == ["a-later-secret", MASK]


def test_records_of_every_logger_are_masked(masked_logging, seen):
    for name in ("httpx", "thirdparty.transport.child", "a.b.c.d"):
        logger = logging.getLogger(name)
        logger.addHandler(seen)
        try:
            logger.error("GET /?token=%s", TOKEN)
        finally:
            logger.removeHandler(seen)
    assert set(seen.lines) == {"GET /?token=***"}


def test_masking_twice_changes_nothing(masked_logging, logger, seen):
    installed = logging.getLogRecordFactory()
    mask_log_records(masked_logging)
    mask_log_records(SecretRegistry())
    assert logging.getLogRecordFactory() is installed
    logger.info(TOKEN)
    assert seen.lines == [MASK]


def test_a_factory_that_was_there_before_still_makes_the_records(registry):
    class Marked(logging.LogRecord):
        pass

    kept = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Marked)
    try:
        mask_log_records(registry)
        record = logging.getLogger("any").makeRecord("any", logging.INFO, "", 0, TOKEN, (), None)
    finally:
        logging.setLogRecordFactory(kept)
    assert isinstance(record, Marked)
    assert record.getMessage() == MASK


@pytest.mark.parametrize("arguments", [("%d items", "many"), ("%s and %s", "one"), ("100%", "x")])
def test_a_wrong_format_in_somebody_elses_log_call_does_not_break_them(logger, arguments, monkeypatch):
    # Without masking such a call prints to stderr and goes on; the agent under test must not fail because of us.
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    handler = logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)
    try:
        logger.error(*arguments)
    finally:
        logger.removeHandler(handler)


def test_a_wrong_format_does_not_leak_either(logger, monkeypatch):
    errors, output = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler(output)
    logger.addHandler(handler)
    try:
        logger.error("%d items", TOKEN)
    finally:
        logger.removeHandler(handler)
    assert TOKEN not in errors.getvalue() + output.getvalue()


class Interrupting(str):
    """A value at which a signal comes, once, whose handler writes to a log."""

    registry = SecretRegistry()
    came = False

    def __len__(self):
        if not self.came:
            self.came = True
            assert self.registry.mask("nothing secret") == "nothing secret"
            assert self.registry.mask_message("cut short...") == "cut short..."
        return super().__len__()


def test_what_is_logged_while_a_value_is_added_is_masked_without_waiting():
    value = Interrupting("0123456789abcdef")
    adding = threading.Thread(target=value.registry.add, args=(value,), daemon=True)
    adding.start()
    adding.join(5)
    assert not adding.is_alive(), "the registry waits for itself"
    assert value.registry.mask("is 0123456789abcdef") == "is ***"
