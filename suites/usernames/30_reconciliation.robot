*** Settings ***
Documentation     What events missed, the agent's hourly reconciliation of usernames repairs, for the offerings that
...               ask for it (document 001, suite 3). If this breaks, one lost event leaves a user locked out.

Resource          ../../resources/usernames.resource

Suite Setup       Two Offerings With A User In Common    username_reconciliation_enabled=${True}
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         usernames    reconciliation    needs:staff

Name              Reconciliation


*** Test Cases ***
The Environment Of The Reconciliation Is Ready
    [Documentation]    USR-3.1: both tokens can look; the only account is a stranger's, and nobody of these sees it.
    [Tags]    USR-3.1
    A Stranger Has An Account On B
    Nobody Should Be Seen    A
    Nobody Should Be Seen    B

Accounts Are Made By Hand
    [Documentation]    USR-3.2: the subject has an account on both sides; A's has a placeholder.
    [Tags]    USR-3.2    follows:USR-3.1
    The Subject's Account Is Made By Hand    A
    The Subject's Account Is Made By Hand    B
    Account Is Called    A    placeholder
    Account Should Be    A    OK    placeholder
    Account Should Be    B    Requested    ${EMPTY}

B's Provider Names The User To Reconcile
    [Documentation]    USR-3.3: a username on B makes the account there OK.
    [Tags]    USR-3.3    follows:USR-3.2
    Account Is Called    B    reconcile
    Account Should Be    B    OK    reconcile

The Reconciliation Repairs The Username
    [Documentation]    USR-3.4: the account on A that differs is changed, and no other call is made.
    [Tags]    USR-3.4    follows:USR-3.3
    Reconcile Usernames
    Agent Should Have Made Only
    ...    B GET marketplace-offering-users
    ...    A GET marketplace-offering-users
    ...    A PATCH marketplace-offering-users
    Account Should Be    A    OK    reconcile

A Second Reconciliation Changes Nothing
    [Documentation]    USR-3.5: the usernames agree, so no PATCH goes over the wire.
    [Tags]    USR-3.5    follows:USR-3.4
    Reconcile Usernames
    Agent Should Have Made Only
    ...    B GET marketplace-offering-users
    ...    A GET marketplace-offering-users
    Account Should Be    A    OK    reconcile

Offerings That Do Not Ask For It Are Skipped
    [Documentation]    USR-3.6: without the flag, or without a backend for members, the agent makes no call although
    ...    the usernames differ.
    [Tags]    USR-3.6    follows:USR-3.4
    Account Is Called    A    differs
    The Agent's Offering Has    username_reconciliation_enabled=${False}
    Reconcile Usernames
    Agent Should Have Made Only
    The Agent's Offering Has    username_reconciliation_enabled=${True}    membership_sync_backend=${EMPTY}
    Reconcile Usernames
    Agent Should Have Made Only
    Account Should Be    A    OK    differs

Nothing Is Left After The Reconciliation
    [Documentation]    USR-3.7: the accounts and all that was prepared can be deleted, and are gone.
    [Tags]    USR-3.7    follows:USR-3.2
    The Subject's Account Is Deleted    A
    The Subject's Account Is Deleted    B
    Everything Should Be Gone
