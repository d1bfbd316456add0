*** Settings ***
Documentation     The provider matrix of document 003: Azure, whose API has the power. Each cell is done on
...               two machines. If a step only seems to act, failure tests pass without a failure.

Resource          ../../resources/cluster_power.resource

Suite Setup       Two Machines At Each Provider    azure
Suite Teardown    The Clusters Are Destroyed
Test Teardown     Every Machine Runs Again
Test Timeout      2 minutes
Test Template     The Cell Should Hold

Test Tags         cluster    needs:datacentre

Name              Power On Azure


*** Test Cases ***    PROVIDER    OPERATION    ANSWER
Azure Stops And Starts A Cluster
    [Documentation]    FLOW-M6: every machine stops, then runs again with a new boot id.
    [Tags]    FLOW-M6
    azure    cluster stop and start    yes
Azure Stops And Starts A Node
    [Documentation]    FLOW-M7: one machine stops and starts, the other does not notice; so does the power cycle.
    [Tags]    FLOW-M7
    azure    node stop and start    yes
Azure Crashes A Node By SSH
    [Documentation]    FLOW-M8: hard, so that what was not synced is lost; SysRq comes back, poweroff -f stays down.
    [Tags]    FLOW-M8
    azure    node crash by SSH    yes
Azure Crashes A Node By API
    [Documentation]    FLOW-M9: the document plans it; the machine stays down until it is started.
    [Tags]    FLOW-M9
    azure    node crash by API    yes
Azure Reboots A Node By SSH
    [Documentation]    FLOW-M10: proven by another boot id, not by the command that was sent.
    [Tags]    FLOW-M10
    azure    node reboot by SSH    yes
