*** Settings ***
Documentation     Events about an offering user reach the offering's manager, and the identity manager as long as it
...               manages the user's identity source (document 001, suite 2). If this breaks, accounts are told to
...               strangers, or to nobody.

Resource          ../../resources/usernames.resource

Suite Setup       Two Offerings With A User In Common
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         usernames    stomp    needs:staff

Name              Event Routing


*** Test Cases ***
B Offers Events
    [Documentation]    USR-2.1: B asks for an upgrade to WebSocket where the agent dials STOMP.
    [Tags]    USR-2.1
    ${endpoint}    Stomp Endpoint Of    B
    Should Be Equal As Integers    ${endpoint.status}    426

Both Managers Are Connected
    [Documentation]    USR-2.2: each has an agent identity, and a queue for offering users of its own.
    [Tags]    USR-2.2    follows:USR-2.1
    The Manager And The Identity Manager Listen
    Channel Should Be Connected    manager
    Channel Should Carry    manager    offering_user
    Channel Should Be Connected    identity manager
    Channel Should Carry    identity manager    offering_user

Both Managers Hear Of The Account
    [Documentation]    USR-2.3: creation and two usernames are told to both.
    [Tags]    USR-2.3    follows:USR-2.2
    The Subject's Account Is Made By Hand    B
    Account Is Called    B    stomp-first
    Account Is Called    B    stomp-test
    Events Of The Account Should Have Been Routed
    ...    create: manager, identity manager
    ...    update stomp-first: manager, identity manager
    ...    username_set stomp-first: manager, identity manager
    ...    update stomp-test: manager, identity manager
    ...    username_set stomp-test: manager, identity manager

Without The Identity Source Only The Manager Hears
    [Documentation]    USR-2.4: between two usernames the identity manager manages nothing; the last one proves that
    ...    it would have heard.
    [Tags]    USR-2.4    follows:USR-2.3
    The Identity Manager Manages
    Account Is Called    B    no-isd
    The Identity Manager Manages    ${IDENTITY_SOURCE}
    Account Is Called    B    isd-again
    Events Of The Account Should Have Been Routed
    ...    create: manager, identity manager
    ...    update stomp-first: manager, identity manager
    ...    username_set stomp-first: manager, identity manager
    ...    update stomp-test: manager, identity manager
    ...    username_set stomp-test: manager, identity manager
    ...    update no-isd: manager
    ...    username_set no-isd: manager
    ...    update isd-again: manager, identity manager
    ...    username_set isd-again: manager, identity manager

Nothing Is Left After The Events
    [Documentation]    USR-2.5: accounts, entities and queues can be deleted, and are gone.
    [Tags]    USR-2.5    follows:USR-2.2
    Everything Should Be Gone
