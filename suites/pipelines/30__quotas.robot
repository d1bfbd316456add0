*** Settings ***
Documentation     Nobody runs more than they pay for, and nobody less: by the day, by the month, and at the same time
...               (document 002, quota enforcement). If this breaks, customers are billed for runs that they never
...               got, or one customer's runs starve everybody else's.

Resource          ../../resources/pipeline_quotas.resource

Suite Setup       A Pipeline Service
Suite Teardown    The Pipeline Service Is Left
Test Teardown     The Queue Is Worked Off
Test Timeout      6 minutes

Test Tags         pipelines    needs:pipelines    needs:database    needs:test-clock

Name              Quotas


*** Test Cases ***
Triggers Admit Exactly The Daily Limit
    [Documentation]    PIPE-C11: one large trigger must not count all its runs against the same free places, nor must
    ...    several at once; the next day has places again.
    [Tags]    PIPE-C11
    [Setup]    Sixteen Hourly Pipelines Are Configured    daily    SCALE
    Quota Is Set    daily    daily_limit=5
    GROUP    One large trigger
        A New Day Begins
        The Scheduler Is Triggered
        Exactly Five Should Be Admitted    daily    skipped=11
        The Queue Is Worked Off
    END
    GROUP    Several at once on the next day
        A New Day Begins
        Trigger The Scheduler At Once    4    limit=4
        Exactly Five Should Be Admitted    daily    skipped=22
        Quota Of Yesterday Should Be    daily    reserved_today=0    pipelines_run_today=5
    END

The Monthly Limit Is Carried From Day To Day
    [Documentation]    PIPE-C12: a counter that begins anew each day would never reach a monthly limit.
    [Tags]    PIPE-C12
    [Setup]    Customer Is Onboarded With Limits    monthly    monthly_limit=3
    GROUP    Two runs on the first day, one on the second, which reaches the limit
        A New Month Begins
        Pipelines Are Run And Completed    monthly    2
        A New Day Begins
        Pipelines Are Run And Completed    monthly    1
        Quota Should Be    monthly    pipelines_run_today=1    pipelines_run_month=3
        Run Should Be Refused    monthly    Monthly pipeline quota exceeded (3 pipelines/month)
    END
    GROUP    On the first of the next month it is free again
        A New Month Begins
        Quota Should Be    monthly    pipelines_run_today=0    pipelines_run_month=0
        Pipelines Are Run And Completed    monthly    3
        Run Should Be Refused    monthly    Monthly pipeline quota exceeded (3 pipelines/month)
    END

No More Run At Once Than The Limit Allows
    [Documentation]    PIPE-C13: what finds no free slot is not lost: it stays PENDING and runs as soon as there is one.
    [Tags]    PIPE-C13
    [Setup]    Customer Is Onboarded With Limits    concurrent    concurrent_limit=2
    Pipelines Are Run    concurrent    cost_billing    5    &{PIPELINE_PARAMETERS}
    GROUP    Five are processed at once: two run, three wait
        ${first}    Process The Queue At Once    5
        Length Should Be    ${first}    2
        Running, Waiting And Completed Should Be    concurrent    2    3    0
    END
    GROUP    The two complete, and give their slots to two others
        Move The Clock    by=10 minutes
        Running, Waiting And Completed Should Be    concurrent    0    3    2
        ${next}    Process The Queue At Once    5
        Length Should Be    ${next}    2
        Running, Waiting And Completed Should Be    concurrent    2    1    2
    END

A Run Over Midnight Counts For The Day That Admitted It
    [Documentation]    PIPE-C14: a place taken on one day and given back on another would leave both days wrong.
    [Tags]    PIPE-C14
    [Setup]    Customer Is Onboarded    nightly    PROFESSIONAL
    GROUP    After midnight two runs of yesterday are still running
        Two Pipelines Run Over Midnight    nightly
        Quota Should Be    nightly    concurrent_running=2    reserved_today=0    reserved_month=2
        Quota Of Yesterday Should Be    nightly    reserved_today=2
    END
    GROUP    The one's success and the other's failure change the day before, and the month
        Move The Clock    by=5 minutes
        Runs Should Be In State    nightly    COMPLETED    1
        Runs Should Be In State    nightly    FAILED    1
        Quota Of Yesterday Should Be    nightly    reserved_today=0    pipelines_run_today=1
        Quota Should Be    nightly    pipelines_run_today=0    reserved_month=0    pipelines_run_month=1
    END

A Final Failure Gives Its Place Back
    [Documentation]    PIPE-C14: what failed for good is not charged; a retry keeps its place until then.
    [Tags]    PIPE-C14
    [Setup]    Customer Is Onboarded With Limits    unlucky    daily_limit=1    monthly_limit=1
    A New Day Begins
    GROUP    While it waits for its retry, the place is taken
        ${run}    Pipeline Is Run    unlucky    fails
        Process Queue Items    1
        Run Should Become    ${run}    PENDING    retry_attempt=1    within=${WITHIN}[pipeline]
        Run Should Be Refused    unlucky    Daily pipeline quota exceeded (1 pipelines/day)
    END
    GROUP    After its last failure, another gets the place
        The Queue Is Worked Off
        Run Should Become    ${run}    FAILED    retry_attempt=3    within=${WITHIN}[pipeline]
        Quota Should Be    unlucky    reserved_today=0    reserved_month=0    pipelines_run_today=0
        Pipelines Are Run And Completed    unlucky    1
        Run Should Be Refused    unlucky    Daily pipeline quota exceeded (1 pipelines/day)
    END

Limits Are Told Beforehand
    [Documentation]    PIPE-C15: who asks first is told every limit that is reached, the daily one before the monthly
    ...    one before the concurrent one.
    [Tags]    PIPE-C15
    [Setup]    Customer Is Onboarded With Limits    informed    daily_limit=1    monthly_limit=1    concurrent_limit=1
    Validation Should Name    informed
    Pipeline Is Running    informed    cost_billing
    Validation Should Name    informed    Daily    Monthly    Concurrent
    Quota Is Set    informed    daily_limit=9
    Validation Should Name    informed    Monthly    Concurrent
    Quota Is Set    informed    monthly_limit=9
    Validation Should Name    informed    Concurrent

Only What Waiting Does Not Cure Is Refused
    [Documentation]    PIPE-C15: who does not ask is refused for a day's or a month's limit; a run that lacks only a
    ...    free slot waits for it.
    [Tags]    PIPE-C15
    [Setup]    Customer Is Onboarded With Limits    refused    daily_limit=1    monthly_limit=1    concurrent_limit=1
    Pipeline Is Running    refused    cost_billing
    Run Should Be Refused    refused    Daily pipeline quota exceeded (1 pipelines/day)
    Quota Is Set    refused    daily_limit=9
    Run Should Be Refused    refused    Monthly pipeline quota exceeded (1 pipelines/month)
    Quota Is Set    refused    monthly_limit=9
    Pipeline Is Run    refused    cost_billing
    Running, Waiting And Completed Should Be    refused    1    1    0
