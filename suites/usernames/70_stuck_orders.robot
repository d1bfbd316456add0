*** Settings ***
Documentation     Every hour the agent looks for orders that nobody has touched for half an hour and processes them, in
...               case their event was lost. If this breaks, such an order waits for ever, or is processed twice.

Resource          ../../resources/usage.resource

Suite Setup       A Federation With An Order That Has Ended
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         usernames    stuck-orders    USR-X7    needs:provisioning

Name              Stuck Orders


*** Test Cases ***
A Stuck Order Is Processed And A Fresh One Left Alone
    [Documentation]    USR-X7: of two open orders the agent takes the one that was last touched before the threshold.
    GROUP    When one order is older than half an hour, and one younger
        ${stuck}    Order A Resource On A    stuck    node_hours=2
        ${fresh}    Order A Resource On A    fresh    node_hours=3
        Nobody Has Touched    ${stuck}    31 minutes
        Nobody Has Touched    ${fresh}    29 minutes
        Reconcile Orders
    END
    GROUP    Then only the older one is on its way
        Order Should Be    ${stuck}    executing
        Order Should Be    ${fresh}    pending-provider
        Agent Should Not Have Called About    ${fresh}
        Agent Should Have Been Answered    B    POST    */marketplace-orders/    201    times=1
    END

A Stuck Order Is Finished Once B Is Done
    [Documentation]    USR-X7: an order whose completion on B was missed is done after all.
    GROUP    When B completes an order and nobody tells
        ${order}    Order A Resource On A    node_hours=2
        Run Agent Cycle
        B Completes What Was Ordered For    ${order}
    END
    GROUP    Then it is left alone as long as it is fresh
        Reconcile Orders
        Order Should Be    ${order}    executing
    END
    GROUP    And done when it is stuck
        Nobody Has Touched    ${order}    31 minutes
        Reconcile Orders
        Order Should Be    ${order}    done
        Limits On B Should Follow The Mapping    node_hours=2
    END

An Order That Has Ended Is Not Touched Again
    [Documentation]    USR-X7: however long ago it ended; the agent asks for stuck orders and finds none.
    ${place}    Place On    A
    Nobody Has Touched    ${place}[ended]    31 minutes
    Reconcile Orders
    Order Should Be    ${place}[ended]    done
    Agent Should Have Made Only    A GET marketplace-orders

Without A Threshold Every Open Order Is Processed
    [Documentation]    USR-X7: a threshold of zero means zero, not the usual half hour.
    ${order}    Order A Resource On A    node_hours=2
    Reconcile Orders    stuck_for=0s
    Order Should Be    ${order}    executing
    Agent Should Have Been Answered    B    POST    */marketplace-orders/    201    times=1
