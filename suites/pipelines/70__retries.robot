*** Settings ***
Documentation     What fails is tried again, later and later, and not for ever; what cannot succeed is not tried again
...               (document 002, retry logic). If this breaks, one outage of a provider becomes many, or costs data.

Resource          ../../resources/pipeline_queue.resource

Suite Setup       A Pipeline Service
Suite Teardown    The Pipeline Service Is Left
Test Teardown     The Queue Is Worked Off
Test Timeout      6 minutes

Test Tags         pipelines    needs:pipelines    needs:database    needs:test-clock

Name              Retries


*** Test Cases ***
Retries Come Later And Later
    [Documentation]    PIPE-C16: after one minute, two and four, down to half of it by chance, so that what failed
    ...    together does not come back together; then the run has failed.
    [Tags]    PIPE-C16
    [Setup]    Customer Is Onboarded    patient    PROFESSIONAL
    GROUP    When several pipelines keep failing
        ${runs}    Pipelines Are Run    patient    fails    3
        Process Queue Items    3
    END
    GROUP    Then each is retried three times
        Retry Should Come After    patient    ${runs}    attempt=1    seconds=60
        Retry Should Come After    patient    ${runs}    attempt=2    seconds=120
        Retry Should Come After    patient    ${runs}    attempt=3    seconds=240
    END
    GROUP    And has failed after the third
        ${failed}    Runs Should Be In State    patient    FAILED    3
        Each Should Have Gone Through    ${failed}    SCHEDULED    PENDING    RUNNING    FAILED
        ...    PENDING    RUNNING    FAILED    PENDING    RUNNING    FAILED    PENDING    RUNNING    FAILED
        Move The Clock    by=2 hours
        The Queue Should Have Nothing To Process
    END

A Retry That Succeeds Completes The Run
    [Documentation]    PIPE-C16: what has passed is no failure any more; the run counts as one, whatever it took.
    [Tags]    PIPE-C16
    [Setup]    Customer Is Onboarded    recovering    PROFESSIONAL
    ${run}    Pipeline Is Run    recovering    fails    failures=${2}
    The Queue Is Worked Off
    Run Should Become    ${run}    COMPLETED    retry_attempt=2    within=${WITHIN}[pipeline]
    Run Should Have Gone Through    ${run}    SCHEDULED    PENDING    RUNNING    FAILED    PENDING    RUNNING    FAILED
    ...    PENDING    RUNNING    COMPLETED

What Time Does Not Cure Is Never Retried
    [Documentation]    PIPE-C17: a wrong key stays wrong; trying it again locks accounts and hides the mistake.
    [Tags]    PIPE-C17
    [Setup]    Customer Is Onboarded    hopeless    PROFESSIONAL
    Runs Should Fail At Once    hopeless
    ...    AUTHENTICATION_FAILED    AUTHORIZATION_FAILED    INVALID_CONFIGURATION    RESOURCE_NOT_FOUND
    Move The Clock    by=2 hours
    The Queue Should Have Nothing To Process
    Runs Should Be In State    hopeless    FAILED    4
