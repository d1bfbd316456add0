*** Settings ***
Documentation     What a run of workflows leaves behind, what users add to it, and how they choose what runs (document
...               003, test results, extending, running). CI reads the results, nobody reads them again by hand.

Resource          ../../resources/cluster_workflows.resource

Suite Setup       The Datacentre Is Open
Suite Teardown    The Clusters Are Destroyed
Test Timeout      2 minutes

Test Tags         cluster    needs:datacentre

Name              Results


*** Test Cases ***
A Result Says What Each Step And Each Check Did
    [Documentation]    FLOW-R1: the keys of the document, so that reports made for it work.
    [Tags]    FLOW-R1
    ${result}    Run Workflow Of Suite    quick.json    quick
    Every Step Should Be Completed    ${result}    4
    Result Should Have The Documented Keys    ${result}
    The Written Result Should Be The Same    ${result}

A Failed Step Is In The Result
    [Documentation]    FLOW-R2: a result without the step that failed looks like a shorter workflow that passed.
    [Tags]    FLOW-R2
    ${result}    Workflow Of Suite Should Fail    quick.json    failing    cluster_status_stopped
    Steps Should Have Ended    ${result}    init=completed    deploy=completed    validate=failed
    Failed Step Should Name Its Check    ${result}    cluster_status_stopped

A Killed Run Loses Nothing
    [Documentation]    FLOW-R3: a run that CI kills must still say how far it came.
    [Tags]    FLOW-R3
    ${result}    Run Is Killed While It Waits    quick.json    waiting
    Steps Should Have Ended    ${result}    init=completed    deploy=completed    custom_command=running

Users Bring Their Own Checks And Steps
    [Documentation]    FLOW-X1, FLOW-X2: registered as the document shows; a check of theirs can fail a step.
    [Tags]    FLOW-X1    FLOW-X2
    Own Checks And Steps Are Registered
    ${result}    Run Workflow Of Suite    ../extensions/own.json    own
    Result Of Step Should Be    ${result}    greet    said=hello to n11
    Workflow Of Suite Should Fail    ../extensions/own.json    own_failing    somebody_is_there

Every Workflow Test Is Listed
    [Documentation]    FLOW-L1: ids are what people select by.
    [Tags]    FLOW-L1
    Listing Should Name    azure-workflow-quick    azure-workflow-failing    hetzner-workflow-quick_elsewhere

Tests Are Selected By Id And By Provider
    [Documentation]    FLOW-L2: a typo in an id must not select nothing and pass.
    [Tags]    FLOW-L2
    Selected Should Be    --run-test    azure-workflow-quick    azure-workflow-quick
    Selected Should Be    --provider    hetzner    hetzner-workflow-quick_elsewhere
    Selecting Should Fail    azure-workflow-quikc    azure-workflow-quick

What Failed Is Run Again, Several At A Time
    [Documentation]    FLOW-L3, FLOW-L4: each on a deployment of its own; what had passed is not run again.
    [Tags]    FLOW-L3    FLOW-L4
    ${results}    Several Tests Are Run At A Time    azure-workflow-quick    azure-workflow-failing
    Runs Should Have Overlapped    ${results}    2
    Rerun Of Failed Should Be    ${results}    azure-workflow-failing
