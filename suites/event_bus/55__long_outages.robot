*** Settings ***
Documentation     Kafka is away for seconds, the database too, and answers come late. If this breaks, the first long
...               outage is the one that loses events.

Resource          ../../resources/event_bus_outages.resource

Suite Setup       An Event Bus    breakable=True
Suite Teardown    The Event Bus Is Left
Test Setup        Open Ledger
Test Teardown     The Bus Should Be Healthy Again
Test Timeout      3 minutes

Test Tags         event-bus    needs:event-bus    needs:faults

Name              Long Outages


*** Test Cases ***
Kafka And The Database Are Away
    [Documentation]    BUS-4.12: events wait in a file, and come out of it in their order.
    [Tags]    BUS-4.12    needs:kafka-outage
    GROUP    When neither Kafka nor the database answers
        ${first}    The Bus Is Known To Be Away
        Break The Database Connection    CONNECTIONS_REFUSED
        ${published}    Publish By The Orchestrator    30    key=filed
        The File Should Have    30
    END
    GROUP    Then all of it is stored, once and in order, when both are back
        Mend The Database Connection
        Bring Kafka Up
        Published Events Are In The Ledger    ${first}    ${published}
        All Of These Should Be Stored    ${first}    ${published}
        Every Event Should Be Stored Exactly Once
        Events With One Key Should Keep Their Order
    END

A Short And A Long Outage Are Recovered From
    [Documentation]    BUS-4.13: after two and after twelve seconds all is well within two, from when a broker answers.
    [Tags]    BUS-4.13    needs:kafka-outage
    An Outage Of Kafka Lasts    2s
    An Outage Of Kafka Lasts    12s
    Every Event Should Be Stored Exactly Once
    Events With One Key Should Keep Their Order
    Recovery Should Take At Most    ${BUS}[replay]

A Success That Comes Late Does Not Count
    [Documentation]    BUS-4.14: what was asked before the breaker opened says nothing about now.
    [Tags]    BUS-4.14
    ${files}    Make Files    6    size=1000    seed=414
    GROUP    When five calls are given up, and a sixth is answered after all
        The Bus Is Watched    WORKFLOW_FAILED
        Pause Service    STAMPING
        Submit Workflows    ${files}[:5]
        No Workflow Should Fail For Half A Second
        Submit Workflows    ${files}[5:]
        Circuit Breaker Should Be    ORCHESTRATOR    stamping    open
        Let Service Go On    STAMPING
    END
    GROUP    Then the breaker closes by its own probes
        Circuit Breaker Should Have Been    ORCHESTRATOR    stamping    open    half_open    closed
        The Late Answer Should Have Been Noticed
    END
