*** Settings ***
Documentation    Every test fails, with the message that its documentation tells.

Library          SqlLibrary

Suite Setup      Connect To Database    ${DATABASE}


*** Variables ***
${DATABASE: Secret}    %{DATABASE_URL}
${PASSWORD: Secret}    %{WRONG_PASSWORD}
${RUNS}                SELECT 1 AS id, '<b>DONE</b>' AS state


*** Test Cases ***
Wrong Value
    [Documentation]    The value '1' (int) should be '2' (int)
    Query Value    SELECT 1    ==    2

Wrong Value With An Own Message
    [Documentation]    Got 1, not 2
    Query Value    SELECT 1    ==    2    Got {value}, not {expected}

Wrong Value For A While
    [Documentation]    The value '1' (int) should be '2' (int) (tried * times in 0.2* s)
    Query Value    SELECT 1    ==    2    retry_for=0.2s

NULL Is Not Less
    [Documentation]    The value NULL cannot be compared with '3' by <.
    Query Value    SELECT NULL    <    3

Operator Forgotten
    [Documentation]    An expected value needs an operator before it, such as ==.
    Query Value    SELECT 1    assertion_expected=3

Wrong Count
    [Documentation]    The number of rows '1' (int) should be greater than '3' (int)
    Row Count    SELECT 1    >    3

Wrong Rows
    [Documentation]    2 of 2 rows are not as expected:*id 1: state is <b>DONE</b>, expected FAILED*missing: id 2*
    VAR    &{first}    id=1    state=FAILED
    VAR    &{second}    id=2    state=FAILED
    Rows Should Be    ${RUNS}    ${first}    ${second}    keys=['id']

Wrong Alias
    [Documentation]    There is no database connection called 'nobody'; open connections: default.
    Query    SELECT 1    alias=nobody

Wrong Statement
    [Documentation]    The statement is not valid SQL: syntax error at or near "FORM".*SELECT * FORM x*
    Query    SELECT * FORM x

Missing Parameter
    [Documentation]    The statement needs the parameter id, which is not given; given: none.
    Query    SELECT %(id)s

Secret Joined Into A Text
    [Documentation]    The text '<secret>' was about to be sent instead of a secret's value*
    Query    SELECT %s    parameters=Token ${PASSWORD}

No Row
    [Documentation]    The query should return one row, but it returned none.
    Query One Row    SELECT 1 WHERE false

Not Connected By Anything
    [Documentation]    Connect by a URL, or by host, database and user; missing: host, user.
    Connect To Database    database=runs

Connected Twice
    [Documentation]    Connect by the URL or by host, database and user, not both.
    Connect To Database    ${DATABASE}    host=elsewhere

Refused Credential
    [Documentation]    The credentials were refused by the database 'postgres' on * port * as 'testyard': password auth*
    Connect To Database    host=%{DATABASE_HOST}    port=%{DATABASE_PORT}    database=postgres    user=testyard
    ...    password=${PASSWORD}

No Notification
    [Documentation]    A notification on runs with done did not arrive within 0.1 s; nothing else did.
    Listen For Notifications    runs
    Notification Should Arrive    runs    done    within=0.1s

Transaction Not Open
    [Documentation]    No transaction is open on this connection.
    Commit Transaction

Password In A Readable URL
    [Documentation]    The database's URL holds a password, which the log would show: pass the URL as a Secret*
    Connect To Database    %{READABLE_URL}
