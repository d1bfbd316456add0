*** Settings ***
Documentation     The users of A's offering are known on B, by name and with their profile, for as long as A knows
...               them. If this breaks, members find no account on B, or who left keeps one.

Resource          ../../resources/membership.resource

Suite Setup       A Federation With An Identity Bridge
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         usernames    identity-bridge    USR-X6    needs:provisioning

Name              Identity Bridge


*** Test Cases ***
A Member Of A Is Pushed To B
    [Documentation]    USR-X6: B knows the members of A and nobody else, vouched for by A's source.
    Sync Members
    Identities On B Should Be From    ${SOURCE_OF_A}    customer    mia
    Identity On B Should Be    mia    ACTIVE    ${SOURCE_OF_A}    full_name=Mia Muster

A Second Cycle Changes Nobody
    [Documentation]    USR-X6: the agent pushes in each cycle; what B already knows stays as it is.
    ${before}    Identity Of    B    mia
    Sync Members
    ${after}    Identity Of    B    mia
    Should Be Equal    ${after}    ${before}
    Identities On B Should Be From    ${SOURCE_OF_A}    customer    mia
    Agent Should Have Changed Only    B    ignoring=POST identity-bridge

One Sync Pushes Each User Once
    [Documentation]    USR-X6: one call for each of the two accounts at A's offering.
    ${bridge}    Open Identity Bridge
    Sync Identities    ${bridge}
    Agent Should Have Changed Only    B    POST identity-bridge    POST identity-bridge

A Changed Profile Is Carried Over
    [Documentation]    USR-X6: a new name on A is the name on B after the next cycle.
    ${mia}    Identity Of    A    mia
    Rename User    A    ${mia.uuid}    Mia Musterfrau
    Sync Members
    Identity On B Should Be    mia    ACTIVE    ${SOURCE_OF_A}    full_name=Mia Musterfrau

A Bridge That Is Switched Off Stops Nobody For Good
    [Documentation]    USR-X6: while B refuses, the agent says so and nobody is harmed; the next cycle catches up.
    GROUP    When B does not accept identities
        The Identity Bridge Of B Is    ${False}
        A Member Of The Project On A    lea
        Sync Members
    END
    GROUP    Then the agent complains and B is as it was
        Agent Should Have Said    Failed to push user
        Members On B Should Be    customer=PROJECT_MANAGER    mia=PROJECT_MEMBER
        Identities On B Should Be From    ${SOURCE_OF_A}    customer    mia
    END
    GROUP    And it catches up when B does
        The Identity Bridge Of B Is    ${True}
        Sync Members
        Members On B Should Be    customer=PROJECT_MANAGER    lea=PROJECT_MEMBER    mia=PROJECT_MEMBER
    END
    [Teardown]    The Identity Bridge Of B Is    ${True}

Stale Users Are Let Go
    [Documentation]    USR-X6: who is no longer at A's offering is removed from A's source: deactivated, with the
    ...    profile gone, unless another source vouches for them.
    GROUP    Given two users, one of whom another source knows too
        ${bridge}    Open Identity Bridge
        A Member Of The Project On A    nils
        A Member Of The Project On A    omar
        Sync Identities    ${bridge}
        Push Identity    B    nils    isd:elsewhere
    END
    GROUP    When both leave
        Members Leave A    nils    omar
        Sync Identities    ${bridge}
    END
    GROUP    Then A's source vouches for neither
        Identity On B Should Be    nils    ACTIVE    isd:elsewhere
        Identity On B Should Be    omar    INACTIVE    full_name=${EMPTY}
        Identities On B Should Be From    ${SOURCE_OF_A}    customer    lea    mia
    END

Who Was Let Go Cannot Come Back
    [Documentation]    USR-X6: B refuses a deactivated user, and the agent has no other way: a member who returns
    ...    has a role on A and no access on B, until somebody on B activates the account.
    This Pins A Known Issue    USR-X6: a user who was let go and returns stays deactivated on B    1.0.7
    A Member On A Gets The Role    omar    PROJECT_MEMBER
    Sync Members
    Agent Should Have Said    is deactivated
    Identity On B Should Be    omar    INACTIVE
    Members On B Should Be    customer=PROJECT_MANAGER    lea=PROJECT_MEMBER    mia=PROJECT_MEMBER

The Agent's Own Cycles Let Nobody Go
    [Documentation]    USR-X6: each cycle makes a new bridge, which does not know who was there before. A member who
    ...    left loses the role, but the account on B stays active for ever.
    This Pins A Known Issue    USR-X6: cycles of the agent never deactivate who left    1.0.7
    Members Leave A    mia
    Sync Members
    Members On B Should Be    customer=PROJECT_MANAGER    lea=PROJECT_MEMBER
    Identity On B Should Be    mia    ACTIVE    ${SOURCE_OF_A}    full_name=Mia Musterfrau
