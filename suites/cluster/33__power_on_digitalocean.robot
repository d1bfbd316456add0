*** Settings ***
Documentation     The provider matrix of document 003: DigitalOcean, where people have the power. Each cell is
...               done on two machines. What cannot be done must be refused, not be skipped.

Resource          ../../resources/cluster_power.resource

Suite Setup       Two Machines At Each Provider    digitalocean
Suite Teardown    The Clusters Are Destroyed
Test Teardown     Every Machine Runs Again
Test Timeout      2 minutes
Test Template     The Cell Should Hold

Test Tags         cluster    needs:datacentre

Name              Power On DigitalOcean


*** Test Cases ***    PROVIDER    OPERATION    ANSWER
DigitalOcean Shuts A Cluster Down And Says How To Start It
    [Documentation]    FLOW-M16: shut down in the guest; start tells the operator and waits for the machines.
    [Tags]    FLOW-M16
    digitalocean    cluster stop and start    manual
DigitalOcean Refuses To Stop Or Start A Node
    [Documentation]    FLOW-M17: NotImplementedError for stop, start and power cycle, and no machine is touched.
    [Tags]    FLOW-M17
    digitalocean    node stop and start    no
DigitalOcean Crashes A Node By SSH
    [Documentation]    FLOW-M18: hard, so that what was not synced is lost; SysRq comes back, poweroff -f stays down.
    [Tags]    FLOW-M18
    digitalocean    node crash by SSH    yes
DigitalOcean Refuses To Crash A Node By API
    [Documentation]    FLOW-M19: NotImplementedError, and no machine is touched.
    [Tags]    FLOW-M19
    digitalocean    node crash by API    no
DigitalOcean Reboots A Node By SSH
    [Documentation]    FLOW-M20: proven by another boot id, not by the command that was sent.
    [Tags]    FLOW-M20
    digitalocean    node reboot by SSH    yes
