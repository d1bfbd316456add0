"""Nothing that Robot Framework writes about a run holds a registered secret, at any log level."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from testyard.core.listening import MaskingListener
from testyard.core.redact import secrets_in_use
from testyard.core.tables import html_table

TOKEN = "fade0000fade1111fade2222fade3333fade4444"

LIBRARY = f'''
import logging
from robot.api import logger
from robot.api.deco import keyword, library
from testyard.core.listening import MaskingListener
from testyard.core.redact import secrets_in_use

TOKEN = "{TOKEN[:20]}" + "{TOKEN[20:]}"


@library(scope="GLOBAL", listener="SELF")
class Leaky(MaskingListener):
    def __init__(self):
        super().__init__()
        secrets_in_use.add(TOKEN)

    @keyword
    def log_it(self):
        logger.info(f"INFO {{TOKEN}}")
        logger.debug(f"DEBUG {{TOKEN}}")
        logger.trace(f"TRACE {{TOKEN}}")
        logger.warn(f"WARN {{TOKEN}}")
        logger.info(f"CONSOLE {{TOKEN}}", also_console=True)
        logging.getLogger("anybody").warning("LOGGING %s", TOKEN)
        print(f"PRINTED {{TOKEN}}")

    @keyword
    def return_it(self):
        return f"Token {{TOKEN}}"

    @keyword
    def fail_with_it(self):
        raise AssertionError(f"failed with {{TOKEN}}")

    @keyword
    def err_with_it(self):
        raise ValueError(f"erred with {{TOKEN}}")
'''

HEALTHY = """
*** Settings ***
Library    Leaky.py

*** Keywords ***
Deep Down
    [Arguments]    ${value}
    Log    ${value}
    Fail With It

*** Test Cases ***
Logs
    Log It
    ${value}    Return It
    Log    ${value}
    VAR    ${other}    ${value} again
    Set Test Message    ${value}
Fails
    Fail With It
Errs
    Err With It
Fails Deep Down
    ${value}    Return It
    Deep Down    ${value}
Fails In Every Structure
    GROUP    Given a group
        FOR    ${n}    IN    1
            IF    True
                WHILE    True    limit=1
                    TRY
                        Fail With It
                    FINALLY
                        No Operation
                    END
                END
            END
        END
    END
Fails In Teardown
    No Operation
    [Teardown]    Fail With It
Catches
    TRY
        Fail With It
    EXCEPT    AS    ${error}
        Log    ${error}
    END
    ${status}    ${message}    Run Keyword And Ignore Error    Fail With It
    Log    ${message}
"""

BROKEN_SETUP = """
*** Settings ***
Library           Leaky.py
Suite Setup       Fail With It
Suite Teardown    Fail With It

*** Test Cases ***
Never Runs
    No Operation
"""


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    kept = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(kept)


def listening_to(message: str) -> SimpleNamespace:
    return SimpleNamespace(message=message)


@pytest.mark.parametrize("event", ["log_message", "message"])
def test_messages_are_masked_in_place(event):
    secrets_in_use.add(TOKEN)
    message = listening_to(f"Token {TOKEN}")
    getattr(MaskingListener(), event)(message)
    assert message.message == "Token ***"


@pytest.mark.parametrize("event", ["end_keyword", "end_test", "end_suite"])
def test_results_are_masked_in_place(event):
    secrets_in_use.add(TOKEN)
    result = listening_to(f"failed with {TOKEN}")
    getattr(MaskingListener(), event)(None, result)
    assert result.message == "failed with ***"


def test_a_secret_with_markup_is_masked_in_tables_too():
    # An escaped secret is another text than the registered one.
    secret = 'pa<ss&wo"rd-1234'
    secrets_in_use.add(secret)
    message = listening_to(html_table("settings", ("passcode",), [(secret,)]))
    MaskingListener().log_message(message)
    assert "ss&amp;wo" not in message.message
    assert "<table" in message.message


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One run of Robot Framework at TRACE; its console and files."""
    directory = tmp_path_factory.mktemp("leaky")
    (directory / "Leaky.py").write_text(LIBRARY)
    (directory / "healthy.robot").write_text(HEALTHY)
    (directory / "broken_setup.robot").write_text(BROKEN_SETUP)
    process = subprocess.run(
        [
            *(sys.executable, "-m", "robot", "--loglevel", "TRACE", "--outputdir", "results"),
            *("--xunit", "xunit.xml", "--debugfile", "debug.txt", "."),
        ],
        cwd=directory,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    files = {path.name: path.read_text() for path in Path(directory / "results").iterdir()}
    return SimpleNamespace(status=process.returncode, console=process.stdout + process.stderr, files=files)


def test_the_run_went_as_it_should_so_that_there_was_something_to_mask(run):
    assert run.status == 6, run.console
    for word in ("INFO", "DEBUG", "TRACE", "WARN", "CONSOLE", "LOGGING", "PRINTED"):
        assert f"{word} ***" in run.files["output.xml"]
    assert "failed with ***" in run.files["output.xml"]
    assert "erred with ***" in run.files["output.xml"]


def test_no_token_reaches_the_console(run):
    assert TOKEN not in run.console


@pytest.mark.parametrize("name", ["output.xml", "log.html", "report.html", "xunit.xml", "debug.txt"])
def test_no_token_reaches_a_result_file(run, name):
    lines = [line.strip()[:200] for line in run.files[name].splitlines() if TOKEN in line]
    assert lines == []
