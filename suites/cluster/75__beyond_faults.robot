*** Settings ***
Documentation     What document 003 lists as future work of faults, done: node operations on every provider, chaos.
...               Each one fails when only its name is there.

Resource          ../../resources/cluster_beyond.resource

Suite Setup       The Datacentre Is Open
Suite Teardown    The Clusters Are Destroyed
Test Timeout      2 minutes

Test Tags         cluster    needs:datacentre

Name              Beyond Faults


*** Test Cases ***
Nodes Are Operated Where The Document Has People Do It
    [Documentation]    FLOW-F5: what the providers' interfaces can do today, for those who ask for it.
    [Tags]    FLOW-F5
    [Setup]    Two Machines At Each Provider    digitalocean    hetzner    power_api=extended
    The Extended Cells Should Hold    digitalocean
    The Extended Cells Should Hold    hetzner

Nodes Are Operated By Libvirt Itself
    [Documentation]    FLOW-F5: by libvirt's own library and daemon, whose machines are those of the lab.
    [Tags]    FLOW-F5    needs:libvirt
    [Setup]    Two Machines At Each Provider    libvirt    power_api=extended
    The Extended Cells Should Hold    libvirt

Chaos Loses No Acknowledged Write
    [Documentation]    FLOW-F6: crashes and stops that a seed picks, while rows are written.
    [Tags]    FLOW-F6
    ${result}    Run Workflow Of Suite    beyond.json    chaos
    Every Step Should Be Completed    ${result}    4

A Partition Loses No Acknowledged Write
    [Documentation]    FLOW-F6: who is cut off must not go on alone, and what it had promised must not be lost.
    [Tags]    FLOW-F6
    [Setup]    A Cluster Of Three Nodes    azure
    Start Writing
    The Primary Is Cut Off
    Stop Writing
    No Acknowledged Write Should Be Lost
