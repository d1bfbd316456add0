*** Settings ***
Documentation     Every test gives a keyword something wrong, and fails.

Resource          ../../../resources/federation.resource

Suite Setup       Start The Lab
Suite Teardown    The Federation Is Taken Down

Name              Bad Input


*** Test Cases ***
An Address Where Nobody Listens
    [Documentation]    A closed port.
    ${token}    Staff Token Of Waldur    A
    Connect To Waldur    A    http://127.0.0.1:%{CLOSED_PORT}    ${token}

An Address That Is None
    [Documentation]    The scheme is missing.
    ${token}    Staff Token Of Waldur    A
    Connect To Waldur    A    waldur    ${token}

A Wrong Token
    [Documentation]    Waldur does not know it.
    ${url}    Address Of Waldur    B
    VAR    ${token: Secret}    %{WRONG_TOKEN}
    Connect To Waldur    B    ${url}    ${token}

A Waldur That Does Not Exist
    [Documentation]    There is A, and there is B.
    Inject Fault    C    NO_STOMP

A Fault That Does Not Exist
    [Documentation]    The known ones are listed.
    Inject Fault    A    EARTHQUAKE

A Fault Without What It Needs
    [Documentation]    Slow answers, but how slow?
    Inject Fault    A    SLOW_ANSWERS

A Channel That Does Not Exist
    [Documentation]    Nobody has opened one.
    Channel Should Be Connected    sauce

A Mapping That Does Not Exist
    [Documentation]    It is not in the variables.
    A Federation Between Two Waldurs    node ours

Events Of Somebody Else
    [Documentation]    It is not in the variables.
    A Federation Between Two Waldurs    passthrough    events=everybody

A Keyword Without A Federation
    [Documentation]    Nobody has joined one.
    Run Agent Cycle

A Side That Does Not Exist
    [Documentation]    There is A, and there is B.
    Create Organisation    C    Customer
