*** Settings ***
Documentation     Each check's verdict in four states of one cluster (document 003, built-in validation checks). A
...               check that passes in every state proves nothing; upstream, nine of twelve were constants.

Resource          ../../resources/cluster_checks.resource

Suite Setup       Every Check Is Judged In Four States
Suite Teardown    The Clusters Are Destroyed
Test Timeout      2 minutes
Test Template     The Verdicts Should Be

Test Tags         cluster    needs:datacentre

Name              Checks


*** Test Cases ***    CHECK    ALL UP    ONE DOWN    MAJORITY DOWN    STOPPED
Cluster Status Is About The Whole Cluster
    [Documentation]    FLOW-C1: healthy and operational, which a cluster without a node is not.
    [Tags]    FLOW-C1
    cluster_status    yes    no    no    no
Stopped Is Fully Stopped
    [Documentation]    FLOW-C2: a machine that still runs still costs.
    [Tags]    FLOW-C2
    cluster_status_stopped    no    no    no    yes
Degraded Is Broken But Usable
    [Documentation]    FLOW-C3: people can go on working, and somebody must be called.
    [Tags]    FLOW-C3
    cluster_degraded    no    yes    no    no
Critical Is Without A Majority
    [Documentation]    FLOW-C4: nothing may be written any more.
    [Tags]    FLOW-C4
    cluster_critical    no    no    yes    yes
Every Node Runs
    [Documentation]    FLOW-C5: one that does not is enough to fail.
    [Tags]    FLOW-C5
    all_nodes_running    yes    no    no    no
Every Node Answers Over SSH
    [Documentation]    FLOW-C6: asked of each node, not of the first one.
    [Tags]    FLOW-C6
    ssh_connectivity    yes    no    no    no
Every Machine Is Off
    [Documentation]    FLOW-C7: by the provider's word, as silence may have many reasons.
    [Tags]    FLOW-C7
    vms_powered_off    no    no    no    yes
A Node Runs
    [Documentation]    FLOW-C8: n13 is never crashed, so it runs until the cluster is stopped, whatever the others do.
    [Tags]    FLOW-C8
    node_status:n13    yes    yes    yes    no
    node_status:n12    yes    yes    no    no
A Node Is In A State
    [Documentation]    FLOW-C9: each node's own state, never the cluster's.
    [Tags]    FLOW-C9
    node_status:n11:stopped    no    yes    yes    yes
    node_status:n12:running    yes    yes    no    no
The Database Runs
    [Documentation]    FLOW-C10: every node answers, and one accepts writes.
    [Tags]    FLOW-C10
    database_running    yes    no    no    no
The Database Is Degraded
    [Documentation]    FLOW-C11: it answers, but a node is missing.
    [Tags]    FLOW-C11
    database_degraded    no    yes    yes    no
The Database Is Down
    [Documentation]    FLOW-C12: no node accepts a connection.
    [Tags]    FLOW-C12
    database_down    no    no    no    yes
The Admin UI Answers
    [Documentation]    FLOW-C13: on every node, over HTTPS with the deployment's own certificate.
    [Tags]    FLOW-C13
    admin_ui_accessible    yes    no    no    no
Nothing Is Lost
    [Documentation]    FLOW-C14: the seeded rows and every acknowledged write; without a majority nobody can tell.
    [Tags]    FLOW-C14
    data_integrity    yes    yes    no    no
