*** Settings ***
Documentation     Many lifecycles in one run, for the benchmarks of driving overhead and memory. They are spread over
...               tests as in any run: Robot Framework keeps what a test did in memory until the test ends.

Resource          lifecycles.resource

Suite Setup       ${PREPARATION}
Suite Teardown    The Federation Is Taken Down
Test Template     Resources Are Created And Terminated

Test Tags         benchmark


*** Variables ***
${PREPARATION}    A Federation Between Two Waldurs
${SHARE}          20


*** Test Cases ***
First Tenth    ${SHARE}
Second Tenth    ${SHARE}
Third Tenth    ${SHARE}
Fourth Tenth    ${SHARE}
Fifth Tenth    ${SHARE}
Sixth Tenth    ${SHARE}
Seventh Tenth    ${SHARE}
Eighth Tenth    ${SHARE}
Ninth Tenth    ${SHARE}
Last Tenth    ${SHARE}
