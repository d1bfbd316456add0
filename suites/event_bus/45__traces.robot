*** Settings ***
Documentation     One request becomes work of five services. If this breaks, nobody can see which of them was slow.

Resource          ../../resources/event_bus_intelligence.resource

Suite Setup       An Event Bus    with_traces=True
Suite Teardown    The Event Bus Is Left
Test Timeout      1 minute

Test Tags         event-bus    needs:event-bus    needs:faults

Name              Traces


*** Test Cases ***
A Workflow Is One Trace Over All Services
    [Documentation]    BUS-F3: over requests and over the bus; kept by the services, and sent to a collector (OTLP).
    [Tags]    BUS-F3
    ${caller}    Run Traced Workflow    intelligence=True
    ${trace}    Trace Should Go Through    ${caller}    orchestrator    onextree    metadata-stamping    reducer
    ...    database-adapter
    ${count}    Get Length    ${trace.spans}
    ${spans}    Spans At The Collector    ${caller.trace_id}    at_least=${count}
    Spans Should Be Those Of    ${spans}    ${trace}
