*** Settings ***
Documentation     Orders that B's provider refuses end in error on A, whatever they were for. If this breaks, customers
...               of A wait for ever for what they will not get, or believe that it was done.

Resource          ../../resources/usage.resource

Suite Setup       A Federation Between Two Waldurs    node hours
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         usernames    rejection    USR-X1

Name              Order Rejection


*** Test Cases ***
A Creation That B Rejects Errs On A
    [Documentation]    USR-X1: A's order errs and names B's order and what became of it; nothing runs on B, and the
    ...    agent does not try again.
    GROUP    When B's provider refuses the order
        ${order}    Order A Resource On A    node_hours=2
        Run Agent Cycle
        B Rejects What Was Ordered For    ${order}    because=no capacity
    END
    GROUP    Then both sides have given up
        Order Should Have Erred Because B Rejected It    ${order}
        Resource Should Be    A    Erred
        Resource Should Be    B    Terminated
    END
    GROUP    And nothing is ordered again
        Run Agent Cycle
        Order Should Be    ${order}    erred
        Agent Should Have Been Answered    B    POST    */marketplace-orders/    201    times=1
    END

The Reason Of B's Provider Is Not Told On A
    [Documentation]    USR-X1: the customer on A learns that the order was rejected, but not why.
    This Pins A Known Issue    USR-X1: B's comment on a rejection does not reach A    1.0.7
    ${order}    Order A Resource On A    node_hours=2
    Run Agent Cycle
    B Rejects What Was Ordered For    ${order}    because=no capacity
    ${target_order}    Order On B Of    ${order}
    Order On B Should Have Been Rejected    ${target_order}    because=no capacity
    Order Should Have Erred Because B Rejected It    ${order}
    ${error}    Error Of Order    ${order}
    Should Not Contain    ${error}    no capacity

Limits That B Rejects Change Nowhere
    [Documentation]    USR-X1: an update that B refuses leaves the limits on both sides as they were.
    A Resource Has Been Created    node_hours=2
    ${order}    Order Other Limits On A    node_hours=5
    Run Agent Cycle
    B Rejects What Was Ordered For    ${order}    because=no capacity
    Order Should Have Erred Because B Rejected It    ${order}
    Resource Should Be    B    OK
    Limits On B Should Follow The Mapping    node_hours=2
    Limits Should Be    A    node_hours=2

A Termination That B Rejects Leaves The Resource Alive
    [Documentation]    USR-X1: A does not report a resource gone that B keeps; the customer can order its end again.
    GROUP    When B refuses to end a resource
        A Resource Has Been Created    node_hours=2
        ${order}    Order Termination On A
        Run Agent Cycle
        B Rejects What Was Ordered For    ${order}    because=data is still there
    END
    GROUP    Then it lives on
        Order Should Have Erred Because B Rejected It    ${order}
        Resource Should Be    A    Erred
        Resource Should Be    B    OK
    END
    GROUP    And it ends when B agrees
        ${order}    Order Termination On A
        The Order Should Be Done By Polling    ${order}
        Resource Should Be    B    Terminated
    END
