*** Settings ***
Documentation     A workflow is taken on, told on the bus, reduced, and ends as a row. If this breaks, nothing that the
...               services do can be found afterwards.

Resource          ../../resources/event_bus.resource

Suite Setup       An Event Bus
Suite Teardown    The Event Bus Is Left
Test Timeout      2 minutes

Test Tags         event-bus    needs:event-bus

Name              Orchestrator To Reducer


*** Test Cases ***
A Workflow Becomes Events And Rows
    [Documentation]    BUS-1.1 orchestrator_reducer_complete_flow_e2e: what happens is told on the bus and kept in rows.
    [Tags]    BUS-1.1
    The Bus Is Watched    WORKFLOW_STARTED    STATE_TRANSITION    WORKFLOW_COMPLETED
    GROUP    When a file is stamped by a workflow
        ${workflow}    Run Workflow    namespace=complete-flow
        Should Be Equal    ${workflow}[state]    COMPLETED
    END
    GROUP    Then the bus tells it, and the tables have it
        The Bus Should Tell    ${workflow}    WORKFLOW_STARTED    STATE_TRANSITION    WORKFLOW_COMPLETED
        The Row Of Workflow Should Be    ${workflow}    COMPLETED
        The Namespace Should Have Processed    1    complete-flow
    END

The Whole Flow Is Quick
    [Documentation]    BUS-1.2: from the request to the final row, with files of 64 KiB: users wait for this.
    [Tags]    BUS-1.2
    ${files}    Make Files    ${BUS}[samples]
    ${workflows}    Run Workflows    ${files}
    The Flow From Request To Row Should Take    ${workflows}    p95    <    ${BUS}[flow]
