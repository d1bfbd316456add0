*** Settings ***
Documentation     Whatever becomes of an account is told to the offering's manager: creation, change, new profile
...               data with the list of what changed, and deletion; also over a connection that keeps breaking. If
...               this breaks, sites keep accounts that should be gone.

Resource          ../../resources/usernames.resource

Suite Setup       An Account Whose Events The Manager Hears
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         usernames    stomp    USR-X4    needs:staff

Name              Offering User Events


*** Test Cases ***
An Event Before Anybody Listens Reaches Nobody
    [Documentation]    USR-X4: what was published to no queue is reported as such.
    [Tags]    needs:faults
    ${account}    The Account On B
    Event Should Have Reached Nobody    B    ${account}    create

The Life Of An Account Is Told
    [Documentation]    USR-X4: update, username_set, attribute_update with its change list, delete, and a new account.
    ${account}    The Account On B
    Account Is Called    B    jdoe42
    The Manager Should Be Told    ${account}    update    username=jdoe42
    The Manager Should Be Told    ${account}    username_set    username=jdoe42
    The Subject's Address On B Changes    subject@example.org
    The Manager Should Be Told    ${account}    attribute_update    changed_attributes=['email']
    The Subject's Account Is Deleted    B
    The Manager Should Be Told    ${account}    delete
    ${other}    The Subject's Account Is Made By Hand    B
    The Manager Should Be Told    ${other}    create

Two Hundred Changes Are Told One By One
    [Documentation]    USR-X4: every change is captured before the next is made; the report says how fast.
    The Manager Should Be Told Of Every Change    times=200

Twenty Disconnects Lose Nothing
    [Documentation]    USR-X4: the queue keeps what is published while the connection is away.
    [Tags]    needs:faults
    The Manager Is Cut Off And Comes Back    times=20
    No Event For The Manager Should Be Lost
