*** Settings ***
Documentation     The lab's port is taken by somebody else.

Resource          ../../../resources/lab.resource

Suite Teardown    Stop The Lab

Name              Bad Start


*** Test Cases ***
A Port That Is Taken On The Address Of A
    [Documentation]    Somebody listens on 127.0.0.1.
    Start The Lab    port=%{PORT_TAKEN_ON_A}

A Port That Is Taken On The Address Of B
    [Documentation]    Somebody listens on 127.0.0.2.
    Start The Lab    port=%{PORT_TAKEN_ON_B}

The Lab Was Not Started
    [Documentation]    Nothing came of it.
    Port Of Waldur    A

The Lab Can Be Started
    [Documentation]    What failed is not in the way.
    Start The Lab
    Port Of Waldur    A
