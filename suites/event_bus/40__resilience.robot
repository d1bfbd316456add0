*** Settings ***
Documentation     Kafka goes away and comes back. If this breaks, an outage of the bus becomes an outage of
...               everything, or events are lost without a word.

Resource          ../../resources/event_bus_outages.resource

Suite Setup       An Event Bus    gives_way=STORING
Suite Teardown    The Event Bus Is Left
Test Setup        Open Ledger
Test Teardown     The Bus Should Be Healthy Again
Test Timeout      3 minutes

Test Tags         event-bus    needs:event-bus    needs:faults

Name              Resilience


*** Test Cases ***
A Circuit Breaker Opens After Five Failures
    [Documentation]    BUS-4.1 circuit_breaker_opens_after_failures: nobody waits for long for what does not answer.
    [Tags]    BUS-4.1
    The Documented Breakers Should Be The Defaults
    GROUP    When the stamping service is away
        Kill Service    STAMPING
        ${openings}    Circuit Breaker Openings    ORCHESTRATOR    stamping    ${BUS}[samples]
    END
    GROUP    Then its breaker opens at once
        Percentile Of Times    ${openings}    p95    <    ${BUS}[opens]
        ${breaker}    Circuit Breaker    ORCHESTRATOR    stamping
        Should Start With    ${breaker}[transitions][-1][reason]    5 failures in a row
    END

It Tries Again When Its Time Is Over
    [Documentation]    BUS-4.2 half_open_after_cooldown: one probe that fails is enough to leave it alone again.
    [Tags]    BUS-4.2
    GROUP    When a breaker has opened, and whom it protects stays away
        Kill Service    STAMPING
        Circuit Breaker Openings    ORCHESTRATOR    stamping    1
    END
    GROUP    Then it tries again, and opens again
        Circuit Breaker Should Have Been    ORCHESTRATOR    stamping    open    half_open    open
        ${breaker}    Circuit Breaker    ORCHESTRATOR    stamping
        Should Start With    ${breaker}[transitions][-1][reason]    a probe has failed
    END

It Closes After Three Successes
    [Documentation]    BUS-4.3 closes_after_successful_operations: the bus has to prove that it is back.
    [Tags]    BUS-4.3    needs:kafka-outage
    GROUP    When the bus comes back
        The Bus Is Known To Be Away
        Bring Kafka Up
    END
    GROUP    Then three events that were published close the breaker
        ${breaker}    Circuit Breaker Should Be    ORCHESTRATOR    event-bus    closed
        Should Be Equal    ${breaker}[transitions][-1][reason]    3 probes in a row have succeeded
    END

Workflows Complete Without Kafka
    [Documentation]    BUS-4.4 graceful_degradation_kafka_unavailable: users get their stamps; what happened is told
    ...    later.
    [Tags]    BUS-4.4    needs:kafka-outage
    GROUP    When Kafka is away
        The Bus Is Known To Be Away
        ${workflow}    Run Workflow
    END
    GROUP    Then the workflow completes, and is told when Kafka is back
        Should Be Equal    ${workflow}[state]    COMPLETED
        Bring Kafka Up
        The Log Of Workflow Should Be    ${workflow}    ${COMPLETED_TELLS}
    END

A Service Says That It Is Degraded
    [Documentation]    BUS-4.5 health_check_reports_degraded_status: an operator sees what is wrong, and when it no
    ...    longer is.
    [Tags]    BUS-4.5    needs:kafka-outage
    Service Should Be    ORCHESTRATOR    healthy
    The Bus Is Known To Be Away
    Service Should Be    ORCHESTRATOR    degraded    because=the event bus: circuit breaker
    Service Should Be    ORCHESTRATOR    degraded    because=events wait in the outbox
    Bring Kafka Up
    Service Should Be    ORCHESTRATOR    healthy    within=${WITHIN}[recovery]

Other Services Do Not Suffer
    [Documentation]    BUS-4.8 cascading_failure_prevention_isolation: stamping and finding stamps need no Kafka.
    [Tags]    BUS-4.8    needs:kafka-outage
    ${files}    Make Files    ${BUS}[samples]    size=1000    seed=48
    GROUP    When Kafka is away
        ${stamps}    Stamp Files    ${files}
        Take Kafka Down
        ${found}    Find Stamps    ${stamps}
        ${hashes}    Hash Files    ${files}
    END
    GROUP    Then hashing and queries are as quick as ever, and no other breaker has opened
        Percentile Of Times    ${found}    p95    <    ${BUS}[stamp_query]
        Percentile Of Times    ${hashes}    p95    <    ${BUS}[hash]    field=hash_ms
        Circuit Breaker Should Be    STAMPING    database    closed
        Circuit Breaker Should Be    ORCHESTRATOR    stamping    closed
    END

An Open Breaker Fails Fast
    [Documentation]    BUS-4.10 event_bus_resilience_circuit_breaker_e2e: a call costs next to nothing while it is open.
    [Tags]    BUS-4.10    needs:kafka-outage
    The Bus Is Known To Be Away
    ${published}    Publish By The Orchestrator    ${BUS}[samples]
    All Should Wait    ${published}
    Percentile Of Times    ${published}    p95    <    ${BUS}[fail_fast]    field=took_ms

What Waited Is Replayed In Order
    [Documentation]    BUS-4.6 automatic_recovery_kafka_restoration: a hundred events of one key, within two seconds.
    [Tags]    BUS-4.6    needs:kafka-outage
    GROUP    When a hundred events have waited for Kafka
        ${first}    ${published}    A Hundred Events Wait For Kafka
        Bring Kafka Up
        Fault Ends In Ledger    outage
    END
    GROUP    Then all are stored, once and in their order, in time
        Published Events Are In The Ledger    ${first}    ${published}
        All Of These Should Be Stored    ${first}    ${published}
        Every Event Should Be Stored Exactly Once
        Events With One Key Should Keep Their Order
        Recovery Should Take At Most    ${BUS}[replay]
    END

Nothing Is Lost In An Outage
    [Documentation]    BUS-4.7 no_data_loss_during_failures: thirty events before it, forty during it, thirty after it.
    [Tags]    BUS-4.7    needs:kafka-outage
    ${before}    Publish By The Orchestrator    30
    Take Kafka Down
    ${during}    Publish By The Orchestrator    40
    Bring Kafka Up
    ${after}    Publish By The Orchestrator    30
    Published Events Are In The Ledger    ${before}    ${during}    ${after}
    All Of These Should Be Stored    ${before}    ${during}    ${after}
    Every Event Should Be Stored Exactly Once

Replay Does Not Flood The Bus
    [Documentation]    BUS-4.9 rate_limiting_during_recovery: three hundred events at no more than a hundred a second,
    ...    each once.
    [Tags]    BUS-4.9    needs:kafka-outage
    The Bus Is Watched    STATE_TRANSITION
    GROUP    When three hundred events have waited for Kafka
        ${first}    The Bus Is Known To Be Away
        ${published}    Publish By The Orchestrator    295
        Bring Kafka Up
    END
    GROUP    Then they are sent once, at no more than a hundred a second, and a tenth
        Published Events Are In The Ledger    ${first}    ${published}
        All Of These Should Be Stored    ${first}    ${published}
        Every Event Should Be Stored Exactly Once
        What Was Sent Goes Into The Ledger
        Every Event Should Be Received Exactly Once
        Throughput    <=    110    arrival=received
    END

Workflows Go On Through An Outage
    [Documentation]    BUS-4.11 event_bus_graceful_degradation_e2e: before it, during it, after it: each tells its
    ...    whole story.
    [Tags]    BUS-4.11    needs:kafka-outage
    ${files}    Make Files    30    size=1000    seed=411
    ${before}    Run Workflows    ${files}[:10]
    The Bus Is Known To Be Away
    ${during}    Run Workflows    ${files}[10:20]
    Bring Kafka Up
    ${after}    Run Workflows    ${files}[20:]
    VAR    @{workflows}    @{before}    @{during}    @{after}
    All Should Have Completed    ${workflows}
    Each Of These Workflows Should Have Told    ${workflows}    ${COMPLETED_TELLS}
