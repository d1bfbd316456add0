*** Settings ***
Documentation     The provider matrix of document 003: GCP, whose API has the power. Each cell is done on
...               two machines. If a step only seems to act, failure tests pass without a failure.

Resource          ../../resources/cluster_power.resource

Suite Setup       Two Machines At Each Provider    gcp
Suite Teardown    The Clusters Are Destroyed
Test Teardown     Every Machine Runs Again
Test Timeout      2 minutes
Test Template     The Cell Should Hold

Test Tags         cluster    needs:datacentre

Name              Power On GCP


*** Test Cases ***    PROVIDER    OPERATION    ANSWER
GCP Stops And Starts A Cluster
    [Documentation]    FLOW-M11: every machine stops, then runs again with a new boot id.
    [Tags]    FLOW-M11
    gcp    cluster stop and start    yes
GCP Stops And Starts A Node
    [Documentation]    FLOW-M12: one machine stops and starts, the other does not notice; so does the power cycle.
    [Tags]    FLOW-M12
    gcp    node stop and start    yes
GCP Crashes A Node By SSH
    [Documentation]    FLOW-M13: hard, so that what was not synced is lost; SysRq comes back, poweroff -f stays down.
    [Tags]    FLOW-M13
    gcp    node crash by SSH    yes
GCP Crashes A Node By API
    [Documentation]    FLOW-M14: the document plans it; the machine stays down until it is started.
    [Tags]    FLOW-M14
    gcp    node crash by API    yes
GCP Reboots A Node By SSH
    [Documentation]    FLOW-M15: proven by another boot id, not by the command that was sent.
    [Tags]    FLOW-M15
    gcp    node reboot by SSH    yes
