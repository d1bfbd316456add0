*** Settings ***
Documentation     The example workflows of document 003, as they are written there, each on a cluster of its own. What
...               people copy from a manual must work.

Resource          ../../resources/cluster_workflows.resource

Suite Setup       The Datacentre Is Open
Suite Teardown    The Clusters Are Destroyed
Test Timeout      2 minutes

Test Tags         cluster    needs:datacentre

Name              The Examples


*** Test Cases ***
Basic Start And Stop
    [Documentation]    FLOW-E1: the first workflow that anybody runs.
    [Tags]    FLOW-E1
    ${result}    Run Example Workflow    basic.json
    Every Step Should Be Completed    ${result}    7
    Every Machine Should Have Booted Twice    ${result}

Single Node Failure
    [Documentation]    FLOW-E2: one node is stopped, the others carry on, it comes back.
    [Tags]    FLOW-E2
    ${result}    Run Example Workflow    node_failure.json
    Every Step Should Be Completed    ${result}    7

Crash Recovery
    [Documentation]    FLOW-E3: two of three nodes crash; the cluster is critical, and whole again afterwards.
    [Tags]    FLOW-E3
    ${result}    Run Example Workflow    crash_recovery.json
    Every Step Should Be Completed    ${result}    8
