*** Settings ***
Documentation     When a Waldur does not answer, the agent says so, leaves A's orders alone, and takes them up again
...               as soon as it can. If this breaks, customers lose orders whenever a provider's Waldur is away.

Resource          ../../resources/daemon.resource

Suite Setup       A Federation That Can Be Misconfigured
Suite Teardown    The Agent Is At Rest And The Federation Taken Down
Test Teardown     Run Keyword If Test Failed    The Agent Is Told The Truth Again
Test Timeout      3 minutes

Test Tags         usernames    unreachable    USR-X9    needs:provisioning

Name              Waldurs That Do Not Answer


*** Test Cases ***
B Has Another Address Than The Agent Was Told
    [Documentation]    USR-X9: the agent names the address that does not answer, and asks A for nothing.
    ${order}    Order A Resource On A    cpu=1
    The Agent Is Told A Wrong Address Of B
    Let The Agent Try    within=${WITHIN}[event]
    ${nobody}    Address Where Nobody Answers
    Agent Should Have Said    Waldur B not reachable at ${nobody}
    Agent Should Have Said    Connection refused
    Agent Should Have Left Alone    ${order}
    The Agent Is Told The Truth Again
    The Order Should Be Done On Both Sides    ${order}    cpu=1

B Refuses The Agent's Token
    [Documentation]    USR-X9: the agent says what B answered, and asks A for nothing.
    ${order}    Order A Resource On A    cpu=2
    The Agent Is Told A Wrong Token Of B
    Let The Agent Try    within=${WITHIN}[event]
    Agent Should Have Said    Unexpected status code: 401
    Agent Should Have Been Answered    B    GET    */marketplace-resources/*    401    times=1
    Agent Should Have Left Alone    ${order}
    The Agent Is Told The Truth Again
    The Order Should Be Done On Both Sides    ${order}    cpu=2

A Refuses The Agent's Token
    [Documentation]    USR-X9: A's first answer ends the round; nobody asks B for anything.
    ${order}    Order A Resource On A    cpu=3
    The Agent Is Told A Wrong Token Of A
    Let The Agent Try    within=${WITHIN}[event]
    Agent Should Have Said    Unable to process the offering
    Agent Should Have Said    Unexpected status code: 401
    Agent Should Have Made Only    A GET marketplace-site-agent-identities
    Agent Should Have Left Alone    ${order}
    The Agent Is Told The Truth Again
    The Order Should Be Done On Both Sides    ${order}    cpu=3

B Is Down
    [Documentation]    USR-X9: while B is down A's order waits; the same agent does it when B is back.
    [Tags]    needs:faults
    ${order}    Order A Resource On A    cpu=4
    B Refuses Connections
    Let The Agent Try    within=${WITHIN}[event]
    Agent Should Have Said    Waldur B not reachable
    Agent Should Have Said    Connection refused
    Agent Should Have Left Alone    ${order}
    B Takes Connections Again
    The Order Should Be Done On Both Sides    ${order}    cpu=4

B Hangs And The Agent With It
    [Documentation]    USR-X9: the agent's client for B knows no time limit, so the agent waits as long as B does;
    ...    when B answers at last, the round goes on where it was.
    [Tags]    needs:faults
    This Pins A Known Issue    USR-X9: the agent waits for B without end    1.0.7
    ${order}    Order A Resource On A    cpu=5
    B Hangs
    Agent Should Hang    quiet=${HANGING}
    Agent Should Have Left Alone    ${order}
    B Answers Again
    Agent Should Go On    within=${WITHIN}[event]
    Order Should Be    ${order}    executing
    The Order Should Be Done On Both Sides    ${order}    cpu=5
