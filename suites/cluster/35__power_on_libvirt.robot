*** Settings ***
Documentation     The provider matrix of document 003: libvirt, where people have the power. Each cell is
...               done on two machines. What cannot be done must be refused, not be skipped.

Resource          ../../resources/cluster_power.resource

Suite Setup       Two Machines At Each Provider    libvirt
Suite Teardown    The Clusters Are Destroyed
Test Teardown     Every Machine Runs Again
Test Timeout      2 minutes
Test Template     The Cell Should Hold

Test Tags         cluster    needs:datacentre

Name              Power On Libvirt


*** Test Cases ***    PROVIDER    OPERATION    ANSWER
Libvirt Shuts A Cluster Down And Says How To Start It
    [Documentation]    FLOW-M26: shut down in the guest; start tells the operator and waits for the machines.
    [Tags]    FLOW-M26
    libvirt    cluster stop and start    manual
Libvirt Refuses To Stop Or Start A Node
    [Documentation]    FLOW-M27: NotImplementedError for stop, start and power cycle, and no machine is touched.
    [Tags]    FLOW-M27
    libvirt    node stop and start    no
Libvirt Crashes A Node By SSH
    [Documentation]    FLOW-M28: hard, so that what was not synced is lost; SysRq comes back, poweroff -f stays down.
    [Tags]    FLOW-M28
    libvirt    node crash by SSH    yes
Libvirt Refuses To Crash A Node By API
    [Documentation]    FLOW-M29: NotImplementedError, and no machine is touched.
    [Tags]    FLOW-M29
    libvirt    node crash by API    no
Libvirt Reboots A Node By SSH
    [Documentation]    FLOW-M30: proven by another boot id, not by the command that was sent.
    [Tags]    FLOW-M30
    libvirt    node reboot by SSH    yes
