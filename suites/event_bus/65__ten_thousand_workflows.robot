*** Settings ***
Documentation     Ten thousand workflows at once. If this breaks, the bus works as long as nobody depends on it.

Resource          ../../resources/event_bus_beyond.resource

Suite Setup       An Event Bus For Heavy Load
Suite Teardown    The Event Bus Is Left
Test Setup        Open Ledger
Test Teardown     Undo Every Fault
Test Timeout      10 minutes

Test Tags         event-bus    needs:event-bus

Name              Ten Thousand Workflows


*** Test Cases ***
They Are In Flight At The Same Time
    [Documentation]    BUS-F1: all of them at one orchestrator; each ends, is stored and counts once.
    [Tags]    BUS-F1    needs:faults
    ${files}    Make Files    ${BUS}[in_flight]    size=100
    GROUP    When ten thousand are submitted before one of them can end
        Pause Service    STAMPING
        Submit Workflows    ${files}    namespace=load
        Let Service Go On    STAMPING
        ${counts}    Workflows Should End    ${BUS}[in_flight]    within=${WITHIN}[load]
    END
    GROUP    Then all of them were in flight, and all have completed
        Should Be Equal    ${counts}[most_in_flight]    ${BUS}[in_flight]
        So Many Should Have Completed    ${BUS}[in_flight]    load
        The Namespace Should Have Processed    ${BUS}[in_flight]    load
    END
