*** Settings ***
Documentation     Waldur answers long lists in pages of a hundred. If the agent stopped after the first, every other
...               user and every other order would be forgotten, and nobody would notice on a small system.

Resource          ../../resources/usage.resource

Suite Setup       A Federation With Long Lists    250
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         usernames    long-lists    USR-X8    needs:provisioning

Name              Long Lists


*** Variables ***
# The first and the last of each page, of users and of orders.
@{AT_THE_EDGES}    001    100    101    200    201    250


*** Test Cases ***
Usernames On Every Page Are Taken Over
    [Documentation]    USR-X8: of 250 users B renames those at the edges of the pages; the agent changes these on A,
    ...    each once, and no other.
    GROUP    When B renames some of 250 users
        B Renames The Users    @{AT_THE_EDGES}
        ${changed}    Sync Usernames
        Should Be True    ${changed}
    END
    GROUP    Then exactly these are renamed on A
        Agent Should Have Renamed On A    @{AT_THE_EDGES}
        Usernames Should Agree    250
    END
    GROUP    And both lists were read to their end
        Agent Should Have Been Answered    B    GET    *marketplace-offering-users/*    200    times=3
        Agent Should Have Been Answered    A    GET    *marketplace-offering-users/*    200    times=3
    END

Nothing Is Renamed Twice
    [Documentation]    USR-X8: with all 250 usernames in agreement, the agent reads the pages and changes nothing.
    ${changed}    Sync Usernames
    Should Not Be True    ${changed}
    Agent Should Have Renamed On A    @{EMPTY}

Orders On Every Page Are Looked After
    [Documentation]    USR-X8: the agent asks B about each of 250 orders once and ends those that B has completed.
    GROUP    When B completes some of 250 orders
        B Completes The Orders    @{AT_THE_EDGES}
        Run Agent Cycle
    END
    GROUP    Then every order was looked after
        Agent Should Have Asked B About Every Order
        Agent Should Have Been Answered    A    GET    */marketplace-orders/[?]*    200    times=3
    END
    GROUP    And exactly these have ended
        Agent Should Have Ended On A    @{AT_THE_EDGES}
        Orders Should Be    A    done=6    executing=244
    END
