*** Settings ***
Documentation    A scenario fails, and what follows it cannot say anything.

Resource         ../../../resources/lab.resource

Name             Chain


*** Test Cases ***
First
    [Documentation]    CHAIN-1: fails.
    [Tags]    CHAIN-1
    Fail    The first one went wrong:\nhere is why.

Second
    [Documentation]    CHAIN-2: would pass, and must not.
    [Tags]    CHAIN-2    follows:CHAIN-1
    [Setup]    Fail    The setup of a test that is skipped must not run.
    No Operation
    [Teardown]    Fail    The teardown of a test that is skipped must not run.

Third
    [Documentation]    CHAIN-3: follows what was skipped.
    [Tags]    CHAIN-3    follows:CHAIN-2
    No Operation

Fourth
    [Documentation]    CHAIN-4: follows nothing that is wrong.
    [Tags]    CHAIN-4
    No Operation

Fifth
    [Documentation]    CHAIN-5: follows what passed.
    [Tags]    CHAIN-5    follows:CHAIN-4
    No Operation

Sixth
    [Documentation]    CHAIN-6: follows what nobody has written.
    [Tags]    CHAIN-6    follows:CHAIN-0
    No Operation

Seventh
    [Documentation]    CHAIN-7: of two predecessors one has failed.
    [Tags]    CHAIN-7    follows:CHAIN-1    follows:CHAIN-4
    No Operation

Eighth
    [Documentation]    CHAIN-8: needs what nobody knows.
    [Tags]    CHAIN-8    needs:miracles
    No Operation
