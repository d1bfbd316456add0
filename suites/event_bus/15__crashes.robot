*** Settings ***
Documentation     Services, the database and brokers are killed in the middle of their work (SIGKILL). If this breaks,
...               a crash leaves workflows that never end, or things that happened twice.

Resource          ../../resources/event_bus_crashes.resource

Suite Setup       An Event Bus
Suite Teardown    The Event Bus Is Left
Test Setup        Open Ledger
Test Teardown     Undo Every Fault
Test Timeout      3 minutes

Test Tags         event-bus    needs:event-bus    needs:faults

Name              Crashes


*** Test Cases ***
The Orchestrator Is Killed
    [Documentation]    BUS-6.1: what it had accepted ends all the same, by the process after it, and counts once.
    [Tags]    BUS-6.1
    ${files}    Make Files    200    size=1000    seed=61
    GROUP    When the orchestrator is killed with workflows in flight
        ${workflows}    Submit Workflows    ${files}    namespace=orchestrator-killed
        Some Of The Namespace Should Have Been Processed    1    orchestrator-killed
        Kill Service    ORCHESTRATOR
        Start Service Again    ORCHESTRATOR
    END
    GROUP    Then each has ended and counts once
        The Workflows Should Be Persisted    @{workflows}
        The Namespace Should Have Processed    200    orchestrator-killed
        All Should Be Stored As    ${workflows}    COMPLETED
    END

The Reducer Is Killed
    [Documentation]    BUS-6.2: a batch is neither lost nor counted twice, wherever it was in its work.
    [Tags]    BUS-6.2
    ${files}    Make Files    200    size=1000    seed=62
    GROUP    When the reducer is killed while workflows end
        ${workflows}    Submit Workflows    ${files}    namespace=reducer-killed
        Some Of The Namespace Should Have Been Processed    1    reducer-killed
        Kill Service    REDUCER
        Start Service Again    REDUCER
    END
    GROUP    Then the totals are right
        The Workflows Should Be Persisted    @{workflows}
        The Namespace Should Have Processed    200    reducer-killed
    END

The Stamping Service Is Killed
    [Documentation]    BUS-6.3: workflows go on by hashing themselves, and by the service when that is back.
    [Tags]    BUS-6.3
    ${files}    Make Files    30    size=1000    seed=63
    Kill Service    STAMPING
    ${during}    Run Workflows    ${files}[:15]
    Start Service Again    STAMPING
    Circuit Breaker Should Be    ORCHESTRATOR    stamping    closed
    ${after}    Run Workflows    ${files}[15:]
    All Should Have Completed    ${during}
    All Should Have Completed    ${after}
    Should Be Equal    ${during}[0][stamp][source]    in_memory_fallback
    Should Be Equal    ${after}[-1][stamp][source]    metadata_stamping

OnexTree And Discovery Are Killed
    [Documentation]    BUS-6.4: intelligence is left out, and whoever knows an address keeps it.
    [Tags]    BUS-6.4
    ${files}    Make Files    20    size=1000    seed=64
    Kill Service    ONEXTREE
    Kill Service    DISCOVERY
    ${workflows}    Run Workflows    ${files}    intelligence=True
    All Should Have Completed    ${workflows}
    Should Be Equal    ${workflows}[-1][stamp][source]    metadata_stamping

PostgreSQL Is Killed
    [Documentation]    BUS-6.5: what was acknowledged is stored when it is back, once.
    [Tags]    BUS-6.5    needs:postgresql-crash
    ${topic}    Topic Of    STATE_TRANSITION
    ${events}    Probes    1000    keys=100
    GROUP    When PostgreSQL is killed while events are stored
        ${load}    Publish Events At Rate    ${topic}    ${events}    1000    background=True
        Restart PostgreSQL    how=kill
        ${happened}    Publishing Should End    ${load}
    END
    GROUP    Then every event is stored once
        Add To Ledger    ${happened}
        All Probes Should Be Stored    ${events}
        Every Event Should Be Stored Exactly Once
    END

A Broker Is Killed Three Times
    [Documentation]    BUS-6.6: a real Kafka, a thousand events a second: nothing that it acknowledged is lost.
    [Tags]    BUS-6.6    needs:kafka-durability
    ${topic}    Topic Of    STATE_TRANSITION
    ${events}    Probes    20000    keys=300
    GROUP    When brokers are killed and started again under load
        ${load}    Publish Events At Rate    ${topic}    ${events}    1000    background=True
        Broker Is Killed And Comes Back    1
        Broker Is Killed And Comes Back    2
        Broker Is Killed And Comes Back    3
        ${happened}    Publishing Should End    ${load}    all_acknowledged=False    within=${WITHIN}[load]
    END
    GROUP    Then every acknowledged event is stored once
        Add To Ledger    ${happened}
        The Adapter Should Have Caught Up    ${events}
        Every Event Should Be Stored Exactly Once
    END
