*** Settings ***
Documentation     What each step of a workflow has really done when it says that it is completed (document 003,
...               available step types). If a step only seems to work, every workflow made of it proves nothing.

Resource          ../../resources/cluster_steps.resource

Suite Setup       A Cluster Of Three Nodes    azure
Suite Teardown    The Clusters Are Destroyed
Test Teardown     Every Node Runs Again
Test Timeout      2 minutes

Test Tags         cluster    needs:datacentre

Name              Steps


*** Test Cases ***
Init Makes A Deployment And No Machine
    [Documentation]    FLOW-S1: what init writes is what every later step reads; it must cost nothing yet.
    [Tags]    FLOW-S1
    A Deployment Is Initialized    gcp
    Deployment Status Should Be    initialized
    The Cloud Should Have No Machine Of It
    [Teardown]    The Cluster In Use Is    azure

Deploy Brings Up Every Node With Its Services
    [Documentation]    FLOW-S2: a deployment counts when people can use it, not when a command has ended.
    [Tags]    FLOW-S2
    Deployment Status Should Be    database_ready
    Every Node Should Answer Over SSH    n11    n12    n13
    Checks Should Pass    admin_ui_accessible    database_running    data_integrity
    [Teardown]    NONE

Validate Forgives Only What It Is Told To
    [Documentation]    FLOW-S3: a check that may fail must not hide one that may not, and retries really try again.
    [Tags]    FLOW-S3
    Validate Should Pass    node_status:n11    database_down    allow_failures=['database_down']
    Validate Should Fail    node_status:n12:stopped    database_down    allow_failures=['database_down']
    Attempts Of Check Should Be    node_status:n12:stopped    1
    Validate Should Fail    node_status:n12:stopped    attempts=3
    Attempts Of Check Should Be    node_status:n12:stopped    3
    [Teardown]    NONE

The Whole Cluster Stops And Starts Again
    [Documentation]    FLOW-S4, FLOW-S5: stopped machines cost no money, and what was stored must be there afterwards.
    [Tags]    FLOW-S4    FLOW-S5
    GROUP    Stopped means off, not only silent
        The Cluster Is Stopped
        Deployment Status Should Be    stopped
        Nodes Should Be    n11=stopped    n12=stopped    n13=stopped
    END
    GROUP    Started means the same data on machines that have booted
        The Cluster Is Started
        Deployment Status Should Be    database_ready
        Only These Nodes Should Have Booted    n11    n12    n13
        Checks Should Pass    data_integrity
    END

One Node Stops And Starts While The Others Run On
    [Documentation]    FLOW-S6, FLOW-S7: a step for one node that touches another one is an outage.
    [Tags]    FLOW-S6    FLOW-S7
    GROUP    Only n12 stops
        Step Should Complete    stop_node    target_node=n12
        Nodes Should Be    n11=running    n12=stopped    n13=running
    END
    GROUP    Only n12 has booted
        Step Should Complete    start_node    target_node=n12
        Nodes Should Be    n11=running    n12=running    n13=running
        Only These Nodes Should Have Booted    n12
    END

A Node Restarts In Both Ways
    [Documentation]    FLOW-S8: a restart that never happened looks just like one that went well, but for the boot id.
    [Tags]    FLOW-S8
    Step Should Complete    restart_node    target_node=n13    method=ssh
    Only These Nodes Should Have Booted    n13
    Step Should Complete    restart_node    target_node=n13    method=graceful
    Only These Nodes Should Have Booted    n13
    The Result Should Show That It Was Off

A Crash Loses What Was Not Synced
    [Documentation]    FLOW-S9: an orderly shutdown in disguise would save what a power cut does not.
    [Tags]    FLOW-S9
    GROUP    By SysRq the node comes back by itself
        ${file}    Something Is Written Without A Sync    n11
        Step Should Complete    crash_node    target_node=n11    method=ssh
        The Crash Should Have Ended In    came back
        What Was Written Should Be Lost    n11    ${file}
    END
    GROUP    By the provider's API it stays down
        Step Should Complete    crash_node    target_node=n11    method=destroy
        The Crash Should Have Ended In    stopped
        Nodes Should Be    n11=stopped    n12=running    n13=running
    END

A Crash That The Kernel Refuses Is A Power Off
    [Documentation]    FLOW-S9: without SysRq the machine is forced off; it must not be taken for one that came back.
    [Tags]    FLOW-S9
    One Machine Without SysRq Is Deployed    gcp
    Step Should Complete    crash_node    target_node=n11    method=ssh
    The Crash Should Have Ended In    stayed down
    Nodes Should Be    n11=stopped
    [Teardown]    The Cluster In Use Is    azure

A Custom Command Runs In The Deployment
    [Documentation]    FLOW-S10: teams bring their own checks as programs; a program's failure is the step's.
    [Tags]    FLOW-S10
    Command Should Print    $provider    azure
    Command Should Fail    exit 3    status=3
    Command Should Fail    exit 3    status=3    attempts=2
    [Teardown]    NONE

Connectivity Is Asked Of Every Node
    [Documentation]    FLOW-C6: the node that does not answer is neither the first nor the last.
    [Tags]    FLOW-C6
    Step Should Complete    stop_node    target_node=n12
    Check Should Fail    ssh_connectivity

A Lost Row Is Noticed
    [Documentation]    FLOW-C14: where nothing is ever lost, a comparison that compares nothing would pass, too.
    [Tags]    FLOW-C14
    Data Integrity Should Name A Deleted Write
    Data Integrity Should Notice A Changed Row
    Checks Should Pass    data_integrity
    [Teardown]    NONE
