*** Settings ***
Documentation    What failed in the suite before is nothing to this one, and what passed there does not count.

Resource         ../../../resources/lab.resource

Name             Another Chain


*** Test Cases ***
Follows A Scenario Of Another Suite
    [Documentation]    CHAIN-9: the order within a suite is explicit; another suite's is not known.
    [Tags]    CHAIN-9    follows:CHAIN-4
    No Operation
