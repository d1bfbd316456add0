*** Settings ***
Documentation     Many lifecycles in one run, for the benchmarks of driving overhead and memory.

Resource          lifecycles.resource

Suite Setup       ${PREPARATION}
Suite Teardown    The Federation Is Taken Down

Test Tags         benchmark


*** Variables ***
${PREPARATION}    A Federation Between Two Waldurs
${LIFECYCLES}     200


*** Test Cases ***
L0
    Resources Are Created And Terminated    20
L1
    Resources Are Created And Terminated    20
L2
    Resources Are Created And Terminated    20
L3
    Resources Are Created And Terminated    20
L4
    Resources Are Created And Terminated    20
L5
    Resources Are Created And Terminated    20
L6
    Resources Are Created And Terminated    20
L7
    Resources Are Created And Terminated    20
L8
    Resources Are Created And Terminated    20
L9
    Resources Are Created And Terminated    20
