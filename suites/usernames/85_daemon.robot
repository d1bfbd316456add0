*** Settings ***
Documentation     The agent as its operators run it: its own command, in each of its modes, until it is told to end.
...               If this breaks, what works one cycle at a time does not work at a site.

Resource          ../../resources/daemon.resource

Suite Setup       A Federation For Daemons
Suite Teardown    The Daemons Are Put Away And The Federation Taken Down
Test Timeout      5 minutes

Test Tags         usernames    daemon    USR-X10    needs:provisioning

Name              The Agent As A Daemon


*** Test Cases ***
The Mode For Orders Ends What Is Done On B
    [Documentation]    USR-X10: order_process finds the order, sees that B is done, and tells A; SIGTERM ends it.
    ${order}    An Order Waits For The Agent Although B Is Done    node_hours=2
    The Agent Runs As A Daemon    order_process
    Order Should Become    ${order}    done    within=${WITHIN}[event]
    Resource Should Be    A    OK
    Backend Id On A Should Be The Resource On B
    Limits On B Should Follow The Mapping    node_hours=2
    Agent Daemon Should End    order_process    within=${WITHIN}[event]

The Mode For Events Acts On An Order's Event
    [Documentation]    USR-X10: event_process places the order on B when A tells of it, goes when told to, and ends
    ...    the order when it is started again.
    [Tags]    slow
    GROUP    When an order is placed while the daemon listens
        The Agent Listens As A Daemon
        ${order}    Order A Resource On A    node_hours=3
        ${target_order}    Order Should Be Placed On B    ${order}    within=${WITHIN}[event]
        The Listening Daemon Should End
    END
    GROUP    Then the next daemon ends it
        Order Should Be    ${order}    executing
        Complete Order On B    ${target_order}
        The Agent Listens As A Daemon
        Order Should Be    ${order}    done
        Limits On B Should Follow The Mapping    node_hours=3
        The Listening Daemon Should End
    END

The Mode For Members Brings A Member To B
    [Documentation]    USR-X10: membership_sync gives a member of the project on A the same role on B.
    [Tags]    slow
    A Resource Has Been Created    node_hours=1
    ${user}    A Member Joins On A Who Is Known On B    member@example.org
    The Agent Runs As A Daemon    membership_sync
    User Should Join The Project On B    ${user}    PROJECT_MEMBER    within=${WITHIN}[event]
    Agent Daemon Should End    membership_sync    within=${WITHIN}[event]

The Mode For Reports Brings Usage To A
    [Documentation]    USR-X10: report tells A what B's provider has counted, in A's units.
    [Tags]    slow
    A Resource Has Been Created    node_hours=4
    Set Usage On B    cpu_k_hours=256
    The Agent Runs As A Daemon    report
    Usage On A Should Become    node_hours=2    within=${WITHIN}[event]
    Agent Daemon Should End    report    within=${WITHIN}[event]
