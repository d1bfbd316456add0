*** Settings ***
Documentation     More than a handful: outside callers that trigger every hour, a database that crashes, and twelve
...               customers with 120 pipelines on two workers. If this breaks, the service works on a developer's desk
...               and not where customers depend on it.

Resource          ../../resources/pipeline_scale.resource

Suite Setup       A Pipeline Service
Suite Teardown    The Pipeline Service Is Left
Test Timeout      5 minutes

Test Tags         pipelines    needs:pipelines    needs:database    needs:test-clock

Name              Many Customers


*** Test Cases ***
Outside Callers Make One Run For Each Hour
    [Documentation]    PIPE-F2: cron on other machines calls late, several at once, and again: each hour runs once.
    [Tags]    PIPE-F2
    [Setup]    Customer Is Onboarded    called_from_outside    ENTERPRISE
    GROUP    When outside callers trigger each hour of a day, late and more than once
        Pipeline Is Configured    called_from_outside    template_name=usage_tracking    schedule=0 * * * *
        Outside Callers Trigger Each Hour Of A Day
    END
    GROUP    Then every hour has run, none twice
        Each Hour Should Have Run Once    called_from_outside    hours=24
        No Customer Should Ever Have Been Over A Limit
    END

What Was Stored Outlives A Crash Of The Database
    [Documentation]    PIPE-F1: PostgreSQL is killed and started again: the API tells the same as before, and what
    ...    waited is executed.
    [Tags]    PIPE-F1    needs:faults    needs:listeners
    [Setup]    A Customer With Something Of Everything    durable
    ${id}    Id Of Customer    durable
    GROUP    When the database crashes
        ${before}    All That The Service Says Of    durable
        ${stored}    Query    ${STORED_OF}    parameters=${id}
        The Database Crashes And Is Started Again
    END
    GROUP    Then everything is still there, and goes on
        ${after}    All That The Service Says Of    durable
        Dictionaries Should Be Equal    ${after}    ${before}
        Rows Should Be    ${STORED_OF}    @{stored}    parameters=${id}
        Waiting Runs Should Still Be Executed    durable
    END

Twelve Customers Run A Hundred And Twenty Pipelines
    [Documentation]    PIPE-F6: 120 pipelines of four plans, two workers: every run ends once, no quota is exceeded. The
    ...    test's message tells how many runs a second were completed.
    [Tags]    PIPE-F6    needs:faults
    ${names}    Twelve Customers With Ten Pipelines Each
    GROUP    When all pipelines are due at once and two workers execute them
        Move The Clock    by=1 hour
        The Scheduler Is Triggered
        Two Workers Execute The Runs Of    ${names}
    END
    GROUP    Then each customer has run what its plan allows
        Those Of The Plan Should Have Run    STARTER    completed=6    skipped=4
        Those Of The Plan Should Have Run    PROFESSIONAL    completed=10    skipped=0
        Those Of The Plan Should Have Run    SCALE    completed=10    skipped=0
        Those Of The Plan Should Have Run    ENTERPRISE    completed=10    skipped=0
        No Customer Should Ever Have Been Over A Limit
        Runs Of These Should Have Been Executed Once    ${names}
    END
