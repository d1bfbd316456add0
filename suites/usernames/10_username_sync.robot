*** Settings ***
Documentation     Usernames that B's provider gives are taken over on A, once and only where they differ
...               (document 001, suite 1). If this breaks, users cannot log in under the name that A shows them.

Resource          ../../resources/usernames.resource

Suite Setup       Two Offerings With A User In Common
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         usernames    sync    needs:staff

Name              Username Sync


*** Test Cases ***
The Manager And The Identity Manager See Their Users
    [Documentation]    USR-1.1: the subject joins a project on each side; each token shows what its role allows.
    [Tags]    USR-1.1
    GROUP    When the subject becomes a member on both sides
        The Subject Becomes A Member    A
        The Subject Becomes A Member    B
    END
    GROUP    Then everybody sees what their role allows
        A Stranger Has An Account On B
        Only The Subject Should Be Seen    A
        Only The Subject Should Be Seen    B
    END

Accounts Are Created In State Requested
    [Documentation]    USR-1.2: Waldur creates the accounts by itself; A's becomes OK under a placeholder.
    [Tags]    USR-1.2    follows:USR-1.1
    Account Should Be    A    Requested    ${EMPTY}
    Account Should Be    B    Requested    ${EMPTY}
    Account Is Called    A    placeholder
    Account Should Be    A    OK    placeholder

B's Provider Names The User
    [Documentation]    USR-1.3: a username on B makes the account there OK.
    [Tags]    USR-1.3    follows:USR-1.2
    Account Is Called    B    inttest-sync
    Account Should Be    B    OK    inttest-sync

The Agent Takes The Username Over
    [Documentation]    USR-1.4: the agent reads B, compares with A, and changes the one account that differs.
    [Tags]    USR-1.4    follows:USR-1.3
    ${changed}    Sync Usernames
    Should Be True    ${changed}
    Agent Should Have Made Only
    ...    B GET marketplace-offering-users
    ...    A GET marketplace-offering-users
    ...    A PATCH marketplace-offering-users
    Account Should Be    A    OK    inttest-sync

A Second Sync Changes Nothing
    [Documentation]    USR-1.5: the usernames agree, so no PATCH goes over the wire.
    [Tags]    USR-1.5    follows:USR-1.4
    ${changed}    Sync Usernames
    Should Not Be True    ${changed}
    Agent Should Have Made Only
    ...    B GET marketplace-offering-users
    ...    A GET marketplace-offering-users
    Account Should Be    A    OK    inttest-sync

Nothing Is Left On Either Side
    [Documentation]    USR-1.6: the accounts and all that was prepared can be deleted, and are gone.
    [Tags]    USR-1.6    follows:USR-1.1
    The Subject's Account Is Deleted    A
    The Subject's Account Is Deleted    B
    Everything Should Be Gone
