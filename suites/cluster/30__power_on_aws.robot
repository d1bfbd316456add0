*** Settings ***
Documentation     The provider matrix of document 003: AWS, whose API has the power. Each cell is done on
...               two machines. If a step only seems to act, failure tests pass without a failure.

Resource          ../../resources/cluster_power.resource

Suite Setup       Two Machines At Each Provider    aws
Suite Teardown    The Clusters Are Destroyed
Test Teardown     Every Machine Runs Again
Test Timeout      2 minutes
Test Template     The Cell Should Hold

Test Tags         cluster    needs:datacentre

Name              Power On AWS


*** Test Cases ***    PROVIDER    OPERATION    ANSWER
AWS Stops And Starts A Cluster
    [Documentation]    FLOW-M1: every machine stops, then runs again with a new boot id.
    [Tags]    FLOW-M1
    aws    cluster stop and start    yes
AWS Stops And Starts A Node
    [Documentation]    FLOW-M2: one machine stops and starts, the other does not notice; so does the power cycle.
    [Tags]    FLOW-M2
    aws    node stop and start    yes
AWS Crashes A Node By SSH
    [Documentation]    FLOW-M3: hard, so that what was not synced is lost; SysRq comes back, poweroff -f stays down.
    [Tags]    FLOW-M3
    aws    node crash by SSH    yes
AWS Crashes A Node By API
    [Documentation]    FLOW-M4: the document plans it; the machine stays down until it is started.
    [Tags]    FLOW-M4
    aws    node crash by API    yes
AWS Reboots A Node By SSH
    [Documentation]    FLOW-M5: proven by another boot id, not by the command that was sent.
    [Tags]    FLOW-M5
    aws    node reboot by SSH    yes
