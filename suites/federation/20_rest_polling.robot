*** Settings ***
Documentation     Orders placed on Waldur A become resources on Waldur B while the agent polls both over REST
...               (document 000, tests 1 to 4). If this breaks, customers of A get nothing of what they pay for.

Resource          ../../resources/federation.resource

Suite Setup       A Federation Between Two Waldurs    node hours
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         federation    rest

Name              REST Polling


*** Test Cases ***
The Agent Knows Whom It Works For
    [Documentation]    FED-1: the agent finds its user, its offering and its service provider before any order comes.
    [Tags]    FED-1
    Preflight Should Pass
    Start The Agent
    Agent Should Have Identified

An Order On A Creates A Resource On B
    [Documentation]    FED-2: create, convert limits, complete; only A's resource carries a backend id.
    [Tags]    FED-2    follows:FED-1
    GROUP    When a customer orders on A
        ${order}    Order A Resource On A    node_hours=2
        Let The Agent Work Until The Order Has Ended    ${order}
    END
    GROUP    Then both sides agree
        Order Should Be    ${order}    done
        Resource Should Be    B    OK
        Limits On B Should Follow The Mapping    node_hours=2
        Backend Id On A Should Be The Resource On B
        Resource On B Should Carry No Backend Id
    END

New Limits On A Reach B Converted
    [Documentation]    FED-3: B gets A's new amount times the factor, and only once the order is done.
    [Tags]    FED-3    follows:FED-2
    GROUP    When the customer orders other limits
        ${order}    Order Other Limits On A    node_hours=5
        Run Agent Cycle
    END
    GROUP    Then nothing changes before B's provider has done its part
        Limits On B Should Follow The Mapping    node_hours=2
        Limits Should Be    A    node_hours=2
    END
    GROUP    And everything changes after it
        Let The Agent Work Until The Order Has Ended    ${order}
        Order Should Be    ${order}    done
        Limits On B Should Follow The Mapping    node_hours=5
        Limits Should Be    A    node_hours=5
    END

A Termination On A Ends The Resource On B
    [Documentation]    FED-4: no resource stays alive, and billed, on either side.
    [Tags]    FED-4    follows:FED-2
    ${order}    Order Termination On A
    Let The Agent Work Until The Order Has Ended    ${order}
    Order Should Be    ${order}    done
    Resource Should Be    A    Terminated
    Resource Should Be    B    Terminated
