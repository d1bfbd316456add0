*** Settings ***
Documentation     The agent is told of orders by both Waldurs over STOMP instead of asking (document 000, tests 5
...               to 7). If this breaks, orders wait for the next poll, and nobody notices why.

Resource          ../../resources/federation.resource

Suite Setup       A Federation That Listens To Events
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         federation    stomp

Name              STOMP Events


*** Test Cases ***
The Agent Is Connected To The Events Of A
    [Documentation]    FED-5: one connection whose queue carries all types. The document counts five connections,
    ...    as the agent had up to 1.0.5; since then one unified queue carries what the five did.
    [Tags]    FED-5
    Channel Should Be Connected    source
    Channel Should Carry    source    order    user_role    resource    service_account    course_account

The Agent Is Connected To The Events Of B
    [Documentation]    FED-6: B's orders, users and resources are told to the agent; optional on your own Waldurs.
    [Tags]    FED-6
    Skip Unless The Target Offers Events
    Channel Should Be Connected    target
    Channel Should Carry    target    order    offering_user    resource

An Order On A Is Told Before It Is Processed
    [Documentation]    FED-7: the event carries the order's UUID and its first state; the order is then done by
    ...    polling, and B tells the end of its own order.
    [Tags]    FED-7    follows:FED-5
    GROUP    When a customer orders on A
        ${order}    Order A Resource On A    node_hours=1
        Order Event Should Arrive    ${order}    pending-consumer
    END
    GROUP    Then the order is done, and B tells its part
        Let The Agent Work Until The Order Has Ended    ${order}
        Order Should Be    ${order}    done
        Backend Id On A Should Be The Resource On B
        B Should Have Told That Its Order Is Done    ${order}
    END

The Resource Of The Event Flow Is Ended
    [Documentation]    FED-7b: the clean-up of FED-7 is a termination like any other.
    [Tags]    FED-7b    follows:FED-7
    ${order}    Order Termination On A
    Let The Agent Work Until The Order Has Ended    ${order}
    Order Should Be    ${order}    done
    Resource Should Be    B    Terminated
