*** Settings ***
Documentation     Runs are taken from the queue in its order, by one worker each, and only ever go forward (document
...               002, queue management and state management). If this breaks, pipelines run twice, or not at all.

Resource          ../../resources/pipeline_queue.resource

Suite Setup       A Pipeline Service
Suite Teardown    The Pipeline Service Is Left
Test Teardown     The Queue Is Worked Off
Test Timeout      6 minutes

Test Tags         pipelines    needs:pipelines    needs:database    needs:test-clock

Name              Queue


*** Test Cases ***
Urgent Runs Go First
    [Documentation]    PIPE-C18: higher priority first, first in first out inside one; equals never overtake.
    [Tags]    PIPE-C18
    [Setup]    Customer Is Onboarded    impatient    SCALE
    ${low}    Pipeline Is Run With Priority    impatient    1
    ${normal}    Pipeline Is Run With Priority    impatient    5
    ${urgent}    Pipeline Is Run With Priority    impatient    10
    ${second normal}    Pipeline Is Run With Priority    impatient    5
    ${second urgent}    Pipeline Is Run With Priority    impatient    10
    VAR    @{order}    ${urgent}    ${second urgent}    ${normal}    ${second normal}    ${low}
    Runs Should Wait In Order    impatient    @{order}
    Process Queue Items    5
    Runs Should Have Started In Order    impatient    @{order}

Four Workers Execute Every Run Once
    [Documentation]    PIPE-C19: workers that are told of so many runs at the same moment share them; they neither take
    ...    one twice nor leave one.
    [Tags]    PIPE-C19    needs:faults
    [Setup]    Two Customers With Sixteen Pipelines Each And Four Workers
    GROUP    When thirty-two pipelines are due at once
        Move The Clock    by=1 hour
        The Scheduler Is Triggered
        Runs Should Be In State    busy    RUNNING    16
        Runs Should Be In State    busier    RUNNING    16
        Move The Clock    by=10 minutes
        Every Run Should End    within=${WITHIN}[pipeline]
    END
    GROUP    Then each was executed once, by four workers
        Runs Should Be In State    busy    COMPLETED    16
        Runs Should Be In State    busier    COMPLETED    16
        The Workers Should Have Executed Every Run Exactly Once    busy    busier
    END
    [Teardown]    The Workers Are Stopped

A Completed Run Stays Completed
    [Documentation]    PIPE-C20: neither a caller of the API nor a statement in the database may run it again.
    [Tags]    PIPE-C20
    [Setup]    Customer Is Onboarded    finished    PROFESSIONAL
    ${run}    Pipeline Is Run    finished    cost_billing
    Process Queue Items    1
    Run Should Become    ${run}    COMPLETED    within=${WITHIN}[pipeline]
    The API Should Not Let Run Start    ${run}    COMPLETED
    Reports Should Be Refused    ${run}    claim=1
    The Database Should Refuse    ${run}    RUNNING    PENDING    SCHEDULED    FAILED    SKIPPED
    Run Should Have Gone Through    ${run}    SCHEDULED    PENDING    RUNNING    COMPLETED

States Are Not Passed Over
    [Documentation]    PIPE-C20: a run that waits has not run: it can neither complete nor go back.
    [Tags]    PIPE-C20
    [Setup]    Customer Is Onboarded    waiting    PROFESSIONAL
    ${run}    Pipeline Is Run    waiting    cost_billing
    Reports Should Be Refused    ${run}    claim=1
    The Database Should Refuse    ${run}    COMPLETED    SCHEDULED
    Run Should Have Gone Through    ${run}    SCHEDULED    PENDING

A Run Whose Executor Is Silent Is Taken Up Again
    [Documentation]    PIPE-C21: without heartbeats a run is given to somebody else, with them it is left alone; what
    ...    its first executor says later does not count.
    [Tags]    PIPE-C21
    [Setup]    Customer Is Onboarded    haunted    PROFESSIONAL
    GROUP    When one executor sends heartbeats and another does not
        ${alive}    Pipeline Is Running    haunted    cost_billing
        ${run}    ${claim}    Pipeline Is Run By    ghost    haunted    cost_billing
        Heartbeats Should Have Been Sent For    ${alive}
        Silence Should Cost Worker Its Run    ghost    ${run}
    END
    GROUP    Then only the silent one's run is started again
        Move The Clock    by=1 minute
        Process Queue Items    1
        Reports Should Be Refused    ${run}    claim=${claim}
        Move The Clock    by=10 minutes
        Run Should Have Been Taken Up Again    ${run}
        Run Should Become    ${alive}    COMPLETED    retry_attempt=0    within=${WITHIN}[pipeline]
    END
