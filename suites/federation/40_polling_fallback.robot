*** Settings ***
Documentation     Without events from B the agent gets to the same end by polling (document 000, test 8 and known
...               issue 3). Many Waldurs have no STOMP: their federations must not stand still.

Resource          ../../resources/federation.resource

Suite Setup       A Federation That Listens To Events    events=source
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         federation    polling

Name              Polling Fallback


*** Test Cases ***
An Order Is Done Without Events From B
    [Documentation]    FED-8: creation and termination end as they do with events, found out by polling.
    [Tags]    FED-8
    GROUP    When a resource is ordered and ended
        A Resource Has Been Created    node_hours=3
        Limits On B Should Follow The Mapping    node_hours=3
        ${order}    Order Termination On A
        Let The Agent Work Until The Order Has Ended    ${order}
    END
    GROUP    Then both sides agree although B told nothing
        Order Should Be    ${order}    done
        Resource Should Be    B    Terminated
        The Agent Should Not Have Asked For Uninvited Events
    END

A Target Without STOMP Is Named And Polled
    [Documentation]    FED-K3: the preflight says in one line that B answers 200 text/html; orders are done anyway.
    [Tags]    FED-K3    needs:faults
    GROUP    When B serves a web page where STOMP should be
        Waldur Offers No STOMP    B
        ${line}    Preflight Should Name    Waldur B    HTTP 200 text/html    falls back to polling
        Should Not Contain    ${line}    \n
    END
    GROUP    Then the order is done by polling
        A Resource Has Been Created    node_hours=1
        Resource Should Be    B    OK
        Backend Id On A Should Be The Resource On B
    END
