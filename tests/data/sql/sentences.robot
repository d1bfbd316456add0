*** Settings ***
Documentation     What a suite says to a database.

Library           SqlLibrary    timeout=5s

Suite Setup       Connect To The Runs
Suite Teardown    Disconnect From All Databases


*** Variables ***
${DATABASE: Secret}    %{DATABASE_URL}
${ALL_RUNS}            SELECT id, state, ended FROM runs ORDER BY id
${STATE_OF_RUN}        SELECT state FROM runs WHERE id = %s
${TELL}                SELECT pg_notify('runs', %s)


*** Test Cases ***
Values Are Read And Checked
    [Documentation]    Operators compare what the test writes as what the database returned.
    Query Value    ${STATE_OF_RUN}    ==    COMPLETED    parameters=1
    ${count}    Query Value    SELECT count(*) FROM runs    ==    2
    Should Be Equal    ${count}    2    type=int
    Query Value    SELECT ended FROM runs WHERE id = 2    ==    NULL
    Query Value    SELECT ended FROM runs WHERE id = 1    <    2026-11-21 13:00
    Query Value    SELECT 1.50    >=    1.5
    Query Value    SELECT 1234    contains    23
    Query Value    SELECT id FROM runs WHERE state = 'FAILED'    validate    value == 2
    Query Value    SELECT true    ==    true
    Row Count    ${ALL_RUNS}    ==    2

Rows Are Read And Compared
    [Documentation]    By name, by position, one or several.
    VAR    &{wanted}    state=FAILED    least=${1}
    ${rows}    Query    SELECT id FROM runs WHERE state = %(state)s AND id > %(least)s    parameters=${wanted}
    Should Be Equal    ${rows}    [{'id': 2}]    type=list
    ${run}    Query One Row    SELECT id, state FROM runs WHERE id = %s    parameters=1
    Should Be Equal    ${run}[state]    COMPLETED
    VAR    &{first}    id=1    state=COMPLETED
    VAR    &{second}    id=2    state=FAILED
    Rows Should Be    ${ALL_RUNS}    ${second}    ${first}
    Rows Should Be    ${ALL_RUNS}    ${first}    ${second}    ordered=True
    Rows Should Be    SELECT 1 AS id WHERE false

A Value May Take Its Time
    [Documentation]    Another connection changes it while it is waited for.
    Execute Sql    CREATE SEQUENCE tries
    Query Value    SELECT nextval('tries')    >=    4    retry_for=5s
    Row Count    SELECT 1 WHERE nextval('tries') > 6    ==    1    retry_for=5s
    Query One Row    SELECT 1 AS one WHERE nextval('tries') > 9    retry_for=5s
    VAR    &{expected}    late=True
    Rows Should Be    SELECT nextval('tries') > 12 AS late    ${expected}    retry_for=5s

What Is Rolled Back Is Never Seen
    [Documentation]    Neither before nor after.
    Connect To Database    ${DATABASE}    alias=second
    Begin Transaction    READ COMMITTED    alias=second
    ${changed}    Execute Sql    UPDATE runs SET state = %s    parameters=LOST    alias=second
    Should Be Equal    ${changed}    2    type=int
    Query Value    ${STATE_OF_RUN}    ==    COMPLETED    parameters=1
    Roll Back Transaction    alias=second
    Row Count    SELECT 1 FROM runs WHERE state = 'LOST'    ==    0
    [Teardown]    Disconnect From Database    second

Only A Commit Lasts
    [Documentation]    Until then nobody else sees it.
    Connect To Database    ${DATABASE}    alias=second
    Begin Transaction    alias=second
    Execute Sql    INSERT INTO runs VALUES (3, 'PENDING', NULL)    alias=second
    Row Count    ${ALL_RUNS}    ==    2
    Commit Transaction    alias=second
    Row Count    ${ALL_RUNS}    ==    3
    [Teardown]    Disconnect From Database    second

What Is Notified Arrives
    [Documentation]    Each notification once, and none that was not sent.
    Listen For Notifications    runs
    Query    ${TELL}    parameters=run 1 failed
    Query    ${TELL}    parameters={"run": 2, "state": "FAILED"}
    VAR    &{second}    run=2
    Notification Should Arrive    runs    ${second}    within=2s
    ${text}    Notification Should Arrive    runs
    Should Be Equal    ${text}    run 1 failed
    No Notification Should Arrive    runs    within=0.1s

Connections Are Cut
    [Documentation]    The next statement connects again.
    Connect To Database    ${DATABASE}    alias=worker    application_name=worker-1
    ${workers}    Database Connections    worker-1
    Length Should Be    ${workers}    1
    ${ended}    Terminate Database Connections    worker-1
    Should Be Equal    ${ended}    1    type=int
    Query Value    SELECT 1    ==    1    alias=worker

A Timeout Lasts As Long As It Is Asked To
    [Documentation]    The default of this suite is five seconds.
    ${before}    Set Sql Timeout    2s
    Query Value    SHOW statement_timeout    ==    2s
    Should Be Equal    ${before}    5s    type=timedelta

The Timeout Is As Before
    [Documentation]    The test before had set its own.
    Query Value    SHOW statement_timeout    ==    5s

A Transaction Is Left Open
    [Documentation]    The next test does not see it.
    Begin Transaction
    Execute Sql    DELETE FROM runs

The Transaction Was Rolled Back
    [Documentation]    At the end of the test before.
    Row Count    ${ALL_RUNS}    ==    3


*** Keywords ***
Connect To The Runs
    [Documentation]    A table with two runs in it.
    Connect To Database    ${DATABASE}
    Execute Sql    CREATE TABLE runs (id int, state text, ended timestamptz)
    Execute Sql    INSERT INTO runs VALUES (1, 'COMPLETED', '2026-11-21 12:00Z'), (2, 'FAILED', NULL)
