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
Many Resources Are Created And Terminated
    [Documentation]    The lifecycle meter listens and writes what it measured.
    Resources Are Created And Terminated    ${LIFECYCLES}
