*** Settings ***
Documentation     What is refused, and how it is said (document 003, configuration format and limitations). A mistake
...               that is found after an hour of deploying costs an hour; one that is never found costs more.

Resource          ../../resources/cluster_refusals.resource

Suite Setup       Two Machines At Each Provider    aws
Suite Teardown    The Clusters Are Destroyed
Test Teardown     Every Machine Runs Again
Test Timeout      2 minutes

Test Tags         cluster    needs:datacentre

Name              Refusals


*** Test Cases ***
An Unknown Step Is Refused
    [Documentation]    FLOW-V1: before anything is deployed, with the place in the file.
    [Tags]    FLOW-V1
    Mistake Should Be Told    unknown_step.json    test_suites.basic.workflow[1].step    stop_clutser

An Unknown Check Is Refused
    [Documentation]    FLOW-V2: upstream skips it and the step passes. The same where a failure is allowed.
    [Tags]    FLOW-V2
    Mistake Should Be Told    unknown_check.json    workflow[2].checks[1]    database_runing
    Mistake Should Be Told    unknown_check.json    workflow[2].allow_failures[0]    no_such_check

A Step For A Node Needs The Node
    [Documentation]    FLOW-V3: which node is never guessed.
    [Tags]    FLOW-V3
    Mistake Should Be Told    missing_target_node.json    workflow[2]    target_node

An Unknown Method Is Refused
    [Documentation]    FLOW-V4: a method that is not known must not become the default one.
    [Tags]    FLOW-V4
    Mistake Should Be Told    unknown_method.json    workflow[2].method    gently

All Mistakes Are Told At Once
    [Documentation]    FLOW-V5: whoever repairs a file wants to do it once.
    [Tags]    FLOW-V5
    Every Mistake Should Be Told    many_mistakes.json    7

The Controller Is Never Harmed
    [Documentation]    FLOW-V6: a wrong line in an inventory must not reboot the machine that runs the tests.
    [Tags]    FLOW-V6
    Node Claims To Be The Controller    n12
    Every Power Operation Should Be Refused    n12    tests run on
    Both Machines Should Run

Another Host Key Is Refused
    [Documentation]    FLOW-V7: a machine that is not the one deployed gets no command.
    [Tags]    FLOW-V7
    Node Gets Another Host Key    n12
    Step Should Fail    restart_node    host key    target_node=n12
    Node Has Its Own Host Key Again    n12
    Machines Should Be Untouched

What Is Wrong Is Said In One Line
    [Documentation]    FLOW-V8: which node, which credential, which setting; and never the credential itself.
    [Tags]    FLOW-V8
    Unknown Node Should Be Named    n14
    GROUP    An expired credential
        The Cloud Credential Expires
        Step Should Fail    stop_node    expired    target_node=n12
        The Cloud Credential Is Valid Again
    END
    Machines Should Be Untouched
    A Missing Setting Should Be Named    AWS_REGION

A Dry Run Prints And Touches Nothing
    [Documentation]    FLOW-V9: every step with its target and call, before it is let loose on a real cluster.
    [Tags]    FLOW-V9
    Dry Run Should Print    node_failure.json    stop_node n12    virtual_machines.begin_deallocate    start_node n12
    Only The Suite's Deployment Should Exist
