*** Settings ***
Documentation     Federations that cannot work, and questions that make no sense; every test fails.

Resource          ../../../resources/federation.resource

Suite Setup       A Federation Between Two Waldurs    passthrough
Suite Teardown    The Federation Is Taken Down

Name              Bad Federation


*** Test Cases ***
An Order That Is No UUID
    [Documentation]    A number, say.
    Order Should Be    order-17    done

An Order That Does Not Exist
    [Documentation]    Nobody has placed it.
    Order Should Be    00000000000000000000000000000017    done

A State That Does Not Exist
    [Documentation]    The known ones are listed.
    Order Should Be    00000000000000000000000000000017    finished

A Component That The Offering Lacks
    [Documentation]    Waldur refuses the order.
    Order A Resource On A    gpu=1

A Component That The Configuration Lacks
    [Documentation]    Nothing follows from it for B.
    A Resource Has Been Created    cpu=1
    Limits On B Should Follow The Mapping    gpu=1

A Known Issue Of Another Version
    [Documentation]    Nobody has looked at the installed version.
    This Pins A Known Issue    ISSUE-1: something is wrong    0.9.9

A Known Issue That Is None Any More
    [Documentation]    The outcome is another one now.
    This Pins A Known Issue    ISSUE-2: something else is wrong    1.0.7
    Fail    The order is done.

Components That The Offerings Lack
    [Documentation]    The preflight names them.
    A Federation Whose Offerings Lack A Component
    Preflight Should Pass

Offerings Of Another Type
    [Documentation]    The preflight names them.
    A Federation Whose Offerings Are Of Another Type
    Preflight Should Pass


*** Keywords ***
A Federation Whose Offerings Are Of Another Type
    [Documentation]    Points the configuration at offerings that the agent cannot serve.
    ${target}    Prepare The Target Side    passthrough
    ${source}    Prepare The Source Side    passthrough
    ${other_target}    An Offering Of Another Type    B
    ${other_source}    An Offering Of Another Type    A
    ${staff}    Staff Token Of Waldur    A
    VAR    &{target}    &{target}    offering=${other_target}
    VAR    &{source}    &{source}    offering=${other_source}    token=${staff}
    ${configuration}    Write The Configuration    ${source}    ${target}    passthrough    nobody
    Join Federation    ${configuration}    project=${source}[project]

An Offering Of Another Type
    [Documentation]    Creates an active offering that is not the site agent's; returns its UUID.
    [Arguments]    ${side: str}
    ${organisation}    Create Organisation    ${side}    Other Provider
    Make Service Provider    ${side}    ${organisation}
    ${category}    Create Category    ${side}    Other
    ${offering}    Create Offering    ${side}    Other    category=${category}    organisation=${organisation}
    ...    kind=Marketplace.Basic
    Set Offering State    ${side}    ${offering}    ACTIVE
    RETURN    ${offering}
