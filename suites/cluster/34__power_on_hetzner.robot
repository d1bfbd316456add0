*** Settings ***
Documentation     The provider matrix of document 003: Hetzner, where people have the power. Each cell is
...               done on two machines. What cannot be done must be refused, not be skipped.

Resource          ../../resources/cluster_power.resource

Suite Setup       Two Machines At Each Provider    hetzner
Suite Teardown    The Clusters Are Destroyed
Test Teardown     Every Machine Runs Again
Test Timeout      2 minutes
Test Template     The Cell Should Hold

Test Tags         cluster    needs:datacentre

Name              Power On Hetzner


*** Test Cases ***    PROVIDER    OPERATION    ANSWER
Hetzner Shuts A Cluster Down And Says How To Start It
    [Documentation]    FLOW-M21: shut down in the guest; start tells the operator and waits for the machines.
    [Tags]    FLOW-M21
    hetzner    cluster stop and start    manual
Hetzner Refuses To Stop Or Start A Node
    [Documentation]    FLOW-M22: NotImplementedError for stop, start and power cycle, and no machine is touched.
    [Tags]    FLOW-M22
    hetzner    node stop and start    no
Hetzner Crashes A Node By SSH
    [Documentation]    FLOW-M23: hard, so that what was not synced is lost; SysRq comes back, poweroff -f stays down.
    [Tags]    FLOW-M23
    hetzner    node crash by SSH    yes
Hetzner Refuses To Crash A Node By API
    [Documentation]    FLOW-M24: NotImplementedError, and no machine is touched.
    [Tags]    FLOW-M24
    hetzner    node crash by API    no
Hetzner Reboots A Node By SSH
    [Documentation]    FLOW-M25: proven by another boot id, not by the command that was sent.
    [Tags]    FLOW-M25
    hetzner    node reboot by SSH    yes
