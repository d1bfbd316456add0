*** Settings ***
Documentation     When a resource and its project end is decided on one side and carried to the other, as the
...               configuration's end_date_sync_direction says. If this breaks, work ends early or is billed on.

Resource          ../../resources/membership.resource

Suite Setup       A Federation With Members    end_date_sync_direction=a_to_b
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         usernames    end-dates    USR-X5    needs:provisioning

Name              End Dates


*** Test Cases ***
A Decides
    [Documentation]    USR-X5: with a_to_b B takes over A's days, also when B's were changed last; nothing is written
    ...    on A.
    The Sides End In Different Months    later=B
    Sync Members
    Both Sides Should End In    March
    Agent Should Have Changed Only    B
    ...    PATCH projects    POST marketplace-resources/set_end_date    ignoring=POST identity-bridge
    Agent Should Never Have Called    A    POST    *set_end_date/
    Agent Should Never Have Called    A    PATCH    *

Days That Agree Are Left Alone
    [Documentation]    USR-X5: nothing is sent when both sides agree: no loop between the two.
    Sync Members
    Both Sides Should End In    March
    Agent Should Have Changed Only    B    ignoring=POST identity-bridge

An End That Is Taken Back Is Taken Back On B
    [Documentation]    USR-X5: what ends no more on A ends no more on B.
    Set End Dates    A
    Sync Members
    End Dates Should Be    A
    End Dates Should Be    B

B Decides About The Resource Only
    [Documentation]    USR-X5: with b_to_a A takes over B's days, but not the project's: the document's agent has
    ...    OFFERING.MANAGER on A, which may not change projects. It only warns.
    The Agent Is Configured Anew    end_date_sync_direction=b_to_a
    The Sides End In Different Months    later=A
    Sync Members
    End Dates Should Be    A    resource=2099-04-01    project=2099-03-15
    End Dates Should Be    B    &{MONTHS}[April]
    Agent Should Have Said    Could not sync project end_date

B Decides
    [Documentation]    USR-X5: with b_to_a and a role in A's project, A takes over both of B's days; nothing is
    ...    written on B.
    The Agent May Change The Project On A
    The Sides End In Different Months    later=A
    Sync Members
    Both Sides Should End In    April
    Agent Should Never Have Called    B    POST    *set_end_date/
    Agent Should Never Have Called    B    PATCH    *

Nobody Decides
    [Documentation]    USR-X5: switched off, each side keeps its own days and nothing is sent.
    The Agent Is Configured Anew    end_date_sync_direction=disabled
    The Sides End In Different Months    later=A
    Sync Members
    End Dates Should Be    A    &{MONTHS}[March]
    End Dates Should Be    B    &{MONTHS}[April]
    Agent Should Never Have Called    A    POST    *set_end_date/
    Agent Should Never Have Called    A    PATCH    *
    Agent Should Never Have Called    B    POST    *set_end_date/
    Agent Should Never Have Called    B    PATCH    *

Who Says So Last Decides
    [Documentation]    USR-X5: bidirectional, the agent's own choice, goes by who changed the day last.
    GROUP    When B spoke last
        The Agent Is Configured Anew    end_date_sync_direction=bidirectional
        The Sides End In Different Months    later=B
        Sync Members
        Both Sides Should End In    April
    END
    GROUP    When A spoke last
        Set End Dates    A    &{MONTHS}[March]
        Sync Members
        Both Sides Should End In    March
    END
