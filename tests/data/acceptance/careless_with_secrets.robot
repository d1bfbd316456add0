*** Settings ***
Documentation     Every test but the last fails, and quotes a token in doing so.

Resource          ../../../resources/federation.resource
Library           LoudLibrary.py

Suite Setup       Start The Lab
Suite Teardown    The Federation Is Taken Down

Name              Careless With Secrets


*** Test Cases ***
A Token That Is Refused
    [Documentation]    Waldur's answer to a wrong token.
    ${url}    Address Of Waldur    A
    VAR    ${token: Secret}    %{WRONG_TOKEN}
    Connect To Waldur    A    ${url}    ${token}

A Keyword That Quotes What It Was Given
    [Documentation]    A token where a UUID is expected.
    Connect To The Lab    B
    ${token}    Staff Token Of Waldur    B
    Create Token    B    ${token.value}

A Keyword That Quotes An Answer
    [Documentation]    Objects that are named after a token, then a refusal.
    Connect To The Lab    A
    ${token}    Staff Token Of Waldur    A
    ${organisation}    Create Organisation    A    ${token.value}
    Make Service Provider    A    ${organisation}
    Create Offering    A    ${token.value}    category=${organisation}    organisation=${organisation}

An Address With A Token In It
    [Documentation]    Nobody answers there, and the message names the address.
    ${token}    Staff Token Of Waldur    A
    Connect To Waldur    A    http://127.0.0.1:1/${token.value}    ${token}

A Connection For Events That Is Refused
    [Documentation]    The STOMP client logs the frames it sends, its passcode included.
    ${port}    Port Of Waldur    A
    ${token}    Staff Token Of Waldur    A
    Open Channel    mine    host=127.0.0.1    port=${port}    vhost=nobody    login=nobody
    ...    passcode=${token}    queue=nothing    within=5s

A Library That Logs And Fails
    [Documentation]    In its messages, in what it returns, in what it raises.
    ${token}    Staff Token Of Waldur    B
    Log Everywhere    ${token}
    ${answer}    Return It    ${token}
    Log    ${answer}    WARN
    Should Be Equal    ${answer}    nothing
    [Teardown]    Fail With It    ${token}

A Message Of The Suite's Own
    [Documentation]    A SKIP whose reason is a token.
    ${token}    Staff Token Of Waldur    B
    Run Keyword And Ignore Error    Fail With It    ${token}
    Log Many    ${token.value}    &{{{'token': $token.value}}}
    Skip    Not with ${token.value}
