*** Settings ***
Documentation     A workflow is taken on, told on the bus, reduced, and ends as a row. If this breaks, nothing that
...               the services do can be found afterwards.

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
    ${workflows}    Run Workflows That Complete    ${files}
    The Flow From Request To Row Should Take    ${workflows}    p95    <    ${BUS}[flow]

Events Of A Workflow Keep Their Order
    [Documentation]    BUS-1.3: a reader of the log can trust it: what happened first stands first, for every workflow.
    [Tags]    BUS-1.3
    GROUP    When forty workflows run, four at a time
        ${files}    Make Files    40    size=1000
        ${workflows}    Run Workflows    ${files}    concurrent=4
    END
    GROUP    Then each has told its own story, and went a legal way
        The Log Of Workflow Should Be    ${workflows}[0]    ${COMPLETED_TELLS}
        Each Of These Workflows Should Have Told    ${workflows}    ${COMPLETED_TELLS}
    END

Totals Count Every Workflow Once
    [Documentation]    BUS-1.4: bills are made of totals: those of one namespace say nothing about another one's.
    [Tags]    BUS-1.4
    ${files}    Make Files    45    size=1000    seed=4
    GROUP    When workflows of two namespaces run at the same time
        Submit Workflows    ${files}[:30]    namespace=thirty
        Submit Workflows    ${files}[30:]    namespace=fifteen
    END
    GROUP    Then each namespace has its own, once
        The Namespace Should Have Processed    30    thirty
        The Namespace Should Have Processed    15    fifteen
    END

A Workflow That Fails Says So Everywhere
    [Documentation]    BUS-1.5: an empty file cannot be stamped: the answer, the bus and the row give the same reason.
    [Tags]    BUS-1.5
    The Bus Is Watched    WORKFLOW_FAILED
    ${workflow}    Run Workflow    content=${EMPTY}    namespace=failing
    GROUP    Then it has failed, with its reason
        Should Be Equal    ${workflow}[error_message]    validation: the file is empty
        ${row}    The Row Of Workflow Should Be    ${workflow}    FAILED
        Should Be Equal    ${row}[error_message]    ${workflow}[error_message]
        ${event}    The Bus Should Tell    ${workflow}    WORKFLOW_FAILED
        Should Be Equal    ${event.value}[payload][error_message]    ${workflow}[error_message]
        The Namespace Should Have Processed    1    failing
    END

Workflows End While The Reducer Is Away
    [Documentation]    BUS-1.6: aggregation is not waited for: it is made up for when the reducer is back.
    [Tags]    BUS-1.6    needs:faults
    ${files}    Make Files    20    size=1000    seed=6
    GROUP    When workflows run without a reducer
        Kill Service    REDUCER
        Run Workflows That Complete    ${files}    namespace=unreduced
        The Namespace Should Have Processed    0    unreduced
    END
    GROUP    Then it reduces them when it is back
        Start Service Again    REDUCER
        The Namespace Should Have Processed    20    unreduced
    END

Publishing Is Quick
    [Documentation]    BUS-1.7 performance_validation_all_scenarios_e2e: no service is held up by telling what it does.
    [Tags]    BUS-1.7
    ${published}    Publish By The Orchestrator    ${BUS}[samples]
    Percentile Of Times    ${published}    p95    <    ${BUS}[publish]    field=took_ms
