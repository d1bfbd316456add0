*** Settings ***
Documentation     Ten thousand workflows at once. If this breaks, the bus works as long as nobody depends on it.

Resource          ../../resources/event_bus_beyond.resource

Suite Setup       An Event Bus For Heavy Load
Suite Teardown    The Event Bus Is Left
Test Setup        Open Ledger
Test Timeout      5 minutes

Test Tags         event-bus    needs:event-bus

Name              Ten Thousand Workflows


*** Test Cases ***
They Are In Flight At The Same Time
    [Documentation]    BUS-F1: all of them at one orchestrator; each ends, is stored and counts once.
    [Tags]    BUS-F1    needs:faults
    ${files}    Make Files    ${BUS}[submitted]    size=100
    GROUP    When more than ten thousand are submitted
        Submit Workflows    ${files}    namespace=load
        ${counts}    Workflows Should End    ${BUS}[submitted]    within=${WITHIN}[load]
    END
    GROUP    Then ten thousand were in flight, and all have completed
        Should Be True    ${counts}[most_in_flight] >= ${BUS}[in_flight]
        So Many Should Have Completed    ${BUS}[submitted]    load
        The Namespace Should Have Processed    ${BUS}[submitted]    load
    END
