*** Settings ***
Documentation     What is published is stored: all of it, once, in order, and soon. If this breaks, the tables no
...               longer tell what happened.

Resource          ../../resources/event_bus_adapter.resource

Suite Setup       An Event Bus    breakable=True    settings=${STORED_SOON}
Suite Teardown    The Event Bus Is Left
Test Setup        Open Ledger
Test Timeout      3 minutes

Test Tags         event-bus    needs:event-bus

Name              Database Adapter


*** Test Cases ***
An Event Is Stored As It Was Published
    [Documentation]    BUS-5.1 single_event_consumption: one event, one row, the same content.
    [Tags]    BUS-5.1
    ${events}    Probes    1
    Probes Are Published    ${events}
    ${rows}    All Probes Should Be Stored    ${events}
    Should Be Equal    ${rows}[0][payload]    ${events}[0][payload]

A Batch Is Stored
    [Documentation]    BUS-5.2 batch_event_consumption_1000_plus: fifteen hundred events at once, a thousand a second
    ...    or more.
    [Tags]    BUS-5.2
    ${events}    Probes    1500
    Probes Are Published    ${events}
    All Probes Should Be Stored    ${events}
    Every Event Should Be Stored Exactly Once
    Throughput    >    ${BUS}[throughput]

Events Are Stored Soon
    [Documentation]    BUS-5.3 consumer_lag_measurement: from the publication until the row is there.
    [Tags]    BUS-5.3
    ${topic}    Topic Of    STATE_TRANSITION
    ${events}    Probes    1000    keys=100
    ${happened}    Publish Events At Rate    ${topic}    ${events}    250
    Add To Ledger    ${happened}
    All Probes Should Be Stored    ${events}
    Delivery Delay    p95    <    ${BUS}[lag]

Events Of One Key Keep Their Order
    [Documentation]    BUS-5.4 event_ordering_preservation: fifty keys take turns, each is stored in its own order.
    [Tags]    BUS-5.4
    ${events}    Probes    500    keys=50
    Probes Are Published    ${events}
    All Probes Should Be Stored    ${events}
    Events With One Key Should Keep Their Order

The Same Event Again Is Stored Once
    [Documentation]    BUS-5.5 duplicate_event_idempotency: a bus delivers at least once, the table has it once.
    [Tags]    BUS-5.5
    ${events}    Probes    100
    ${topic}    Topic Of    STATE_TRANSITION
    GROUP    When a hundred events are published three times
        Probes Are Published    ${events}
        Publish Events    ${topic}    ${events}
        Publish Events    ${topic}    ${events}
        Consumer Lag    database-adapter-effect-group    ${topic}    ==    0    retry_for=${WITHIN}[stored]
    END
    GROUP    Then each is stored once
        All Probes Should Be Stored    ${events}
        Every Event Should Be Stored Exactly Once
        Duplicated Events Should Be At Most    ${BUS}[doubled]
    END

What Cannot Be Handled Is Set Aside
    [Documentation]    BUS-5.6 failed_event_dlq_routing: it is kept with all that is needed to mend it; others go on.
    [Tags]    BUS-5.6
    The Dead Letters Are Watched
    ${events}    Probes    10
    GROUP    When events cannot be understood
        What Is No Event Is Published    first    no json
        What Is No Event Is Published    second    {"no": "envelope"}
        What Is No Event Is Published    third    ${None}
        Probes Are Published    ${events}
    END
    GROUP    Then they are dead letters, and the others are stored
        The Dead Letter Should Tell Everything    first    no json    VALIDATION_ERROR
        The Dead Letter Should Tell Everything    second    {"no": "envelope"}    VALIDATION_ERROR
        The Dead Letter Should Tell Everything    third    ${None}    VALIDATION_ERROR
        All Probes Should Be Stored    ${events}
    END

A Steady Flow Is Stored
    [Documentation]    BUS-5.7 database_adapter_event_consumption_e2e: more than a thousand events a second, for
    ...    seconds.
    [Tags]    BUS-5.7
    ${topic}    Topic Of    STATE_TRANSITION
    ${events}    Probes    4000    keys=300
    ${happened}    Publish Events At Rate    ${topic}    ${events}    2500
    Add To Ledger    ${happened}
    All Probes Should Be Stored    ${events}
    Every Event Should Be Stored Exactly Once
    Throughput    >    ${BUS}[throughput]

It Goes On Where It Had Stopped
    [Documentation]    BUS-5.8: the adapter is killed while events come in; nothing is lost, nothing stored twice.
    [Tags]    BUS-5.8    needs:faults
    ${topic}    Topic Of    STATE_TRANSITION
    ${events}    Probes    1000    keys=100
    GROUP    When the adapter is killed and started again under load
        ${load}    Publish Events At Rate    ${topic}    ${events}    250    background=True
        The Adapter Is Killed At Work    ${events}
        ${happened}    Publishing Should End    ${load}
    END
    GROUP    Then every event is stored once
        Add To Ledger    ${happened}
        All Probes Should Be Stored    ${events}
        Every Event Should Be Stored Exactly Once
        The Adapter Should Tell The Same Delay
    END

Two Adapters Share The Work
    [Documentation]    BUS-5.9: each has partitions of its own; one that ends leaves them to the other, and nothing is
    ...    lost.
    [Tags]    BUS-5.9    needs:faults    needs:kafka-rebalance
    ${events}    Probes    1200    keys=100
    GROUP    When a second adapter comes, and goes
        Start Second Adapter
        The Partitions Should Be Shared By    2
        Probes Are Published    ${events}[:600]
        Stop Second Adapter
        The Partitions Should Be Shared By    1
        Probes Are Published    ${events}[600:]
    END
    GROUP    Then every event is stored once
        All Probes Should Be Stored    ${events}
        Every Event Should Be Stored Exactly Once
    END

It Waits For The Database
    [Documentation]    BUS-5.10: a database that is away is no reason to lose an event, nor to set it aside.
    [Tags]    BUS-5.10    needs:faults
    ${topic}    Topic Of    STATE_TRANSITION
    ${letters}    End Offset    ${topic}.dlq
    ${events}    Probes    300
    GROUP    When events come in while the database is away
        Break The Database Connection    CONNECTIONS_REFUSED
        Probes Are Published    ${events}
        Service Should Be    ADAPTER    unhealthy    within=${WITHIN}[recovery]
        Mend The Database Connection
    END
    GROUP    Then all are stored, and none is a dead letter
        All Probes Should Be Stored    ${events}
        Every Event Should Be Stored Exactly Once
        End Offset    ${topic}.dlq    ==    ${letters}
    END
