*** Settings ***
Documentation     A federation is prepared step by step, and whatever is missing is named before any order
...               is placed (document 000, set-up steps 1 to 5). If this breaks, every later failure is a riddle.

Resource          ../../resources/federation.resource

Suite Setup       A Federation Between Two Waldurs    one to many    events=both
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         federation    setup

Name              Federation Setup


*** Test Cases ***
The Target Side Is Ready
    [Documentation]    FED-S1: organisation, offering, components, plan, activation and token on B.
    [Tags]    FED-S1
    Preflight Should Pass    FED-S1

The Source Side Is Ready
    [Documentation]    FED-S2: offering, plan, activation, project and token on A.
    [Tags]    FED-S2
    Preflight Should Pass    FED-S2

The Components Are Mapped
    [Documentation]    FED-S3: each component of A passes through to B, or converts with factors.
    [Tags]    FED-S3
    Preflight Should Pass    FED-S3

Both Sides Offer Events
    [Documentation]    FED-S4: both Waldurs ask for an upgrade where the agent dials STOMP over WebSocket.
    [Tags]    FED-S4
    Preflight Should Pass    FED-S4

Users Can Be Matched
    [Documentation]    FED-S5: the configuration says how the agent finds A's users on B.
    [Tags]    FED-S5
    Preflight Should Pass    FED-S5

An Offering That Is Not Active Is Named
    [Documentation]    FED-S1: nobody can order from a paused offering, on either side.
    [Tags]    FED-S1    FED-S2    needs:provisioning
    The Offering On A Waldur Is Paused    B
    Preflight Should Name    FED-S1    Waldur B    the offering's state    Paused
    The Offering On A Waldur Is Paused    A
    Preflight Should Name    FED-S2    Waldur A    the offering's state    Paused
    [Teardown]    The Offerings Are Active Again

A Missing Endpoint For Events Is Named
    [Documentation]    FED-S4: a Waldur without STOMP is told from one that has it.
    [Tags]    FED-S4    needs:faults
    Waldur Offers No STOMP    B
    Preflight Should Name    FED-S4    Waldur B    HTTP 200 text/html

A Member On A Becomes A Member On B However Matched
    [Documentation]    FED-S5: by username, by email address, or by community user id.
    [Tags]    FED-S5    needs:provisioning
    [Template]    A Member On A Becomes A Member On B
    username    user_field    known_by=username
    email    user_field    known_by=email
    cuid    remote_eduteams    known_by=username

A Component That Is Not There Is Named
    [Documentation]    FED-S3: the configuration may name only components that both offerings have.
    [Tags]    FED-S3    needs:provisioning
    A Federation Whose Offerings Lack A Component
    Preflight Should Name    FED-S3    Waldur A    component node_hours    no such component
    Preflight Should Name    FED-S3    Waldur B    component cpu_k_hours    no such component
