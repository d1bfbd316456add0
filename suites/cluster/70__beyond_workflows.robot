*** Settings ***
Documentation     What document 003 lists as future work of workflows, done: parallel and conditional steps, rollback,
...               hooks. Each one fails when only its name is there.

Resource          ../../resources/cluster_beyond.resource

Suite Setup       The Datacentre Is Open
Suite Teardown    The Clusters Are Destroyed
Test Timeout      2 minutes

Test Tags         cluster    needs:datacentre

Name              Beyond Workflows


*** Test Cases ***
Steps Run At The Same Time
    [Documentation]    FLOW-F1: two restarts at the same time take as long as one.
    [Tags]    FLOW-F1
    ${result}    Run Workflow Of Suite    beyond.json    parallel
    ${parallel}    Get Step Result    ${result}    parallel
    Steps Inside Should Overlap    ${parallel}

Steps Depend On What Came Before
    [Documentation]    FLOW-F2: a step that is skipped says so, and the one for the other case runs.
    [Tags]    FLOW-F2
    ${result}    Run Workflow Of Suite    beyond.json    conditional
    Named Step Should Have Ended    ${result}    when it failed    completed
    Named Step Should Have Ended    ${result}    when it passed    skipped

A Group Is Undone In Reverse Order
    [Documentation]    FLOW-F3: what was done last is undone first, or the undo meets a state that never was.
    [Tags]    FLOW-F3
    ${result}    Workflow Of Suite Should Fail    beyond.json    rollback    exit status 1
    The Undo Should Have Been In Order    ${result}    third    second    first

Hooks Hear Of Every Step
    [Documentation]    FLOW-F4: monitoring sees a run as it happens, over a webhook and in a file.
    [Tags]    FLOW-F4
    ${result}    Run Workflow With Hooks    quick.json    quick
    The Webhook Should Have Heard Of Every Step    ${result}
    The Event File Should Tell Of Every Step    ${result}
