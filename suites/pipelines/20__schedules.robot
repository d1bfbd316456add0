*** Settings ***
Documentation     When pipelines run: in the zone that the customer means, once when the clocks change, and once for
...               each scheduled time however often the scheduler is triggered. If this breaks, bills are made twice,
...               or a day is missing. The clock is moved to each time that is due.

Resource          ../../resources/pipeline_schedules.resource

Suite Setup       A Pipeline Service
Suite Teardown    The Pipeline Service Is Left
Test Timeout      2 minutes

Test Tags         pipelines    needs:pipelines    needs:database    needs:test-clock

Name              Schedules


*** Test Cases ***
Four Triggers At Once Queue Each Time Once
    [Documentation]    PIPE-C10: four callers trigger at the same time, and one more after them: two pipelines are due,
    ...    two runs are made.
    [Tags]    PIPE-C10
    [Setup]    A Customer In A Zone    fourfold    UTC    at=2026-02-28T00:30    daily=0 2 * * *    often=0 2 * * *
    GROUP    When the two pipelines are triggered again and again
        Move The Clock    to=2026-02-28T02:00
        ${answers}    Trigger The Scheduler At Once    4
        ${late}    The Scheduler Is Triggered
    END
    GROUP    Then each has one run
        Together They Should Have Triggered    ${answers}    2
        Should Be Equal As Integers    ${late}[triggered_count]    0
        Pipeline Should Have Been Queued For    fourfold    cost_billing    2026-02-28T02:00:00Z
        Pipeline Should Have Been Queued For    fourfold    usage_tracking    2026-02-28T02:00:00Z
    END
    [Teardown]    Customer Makes No More Runs    fourfold

Nothing Is Queued Before Its Time
    [Documentation]    PIPE-C10: a second before its time a pipeline is not due, at its time it is.
    [Tags]    PIPE-C10
    [Setup]    A Customer In A Zone    early    UTC    at=2026-03-01T01:00    daily=0 2 * * *
    Move The Clock    to=2026-03-01T01:59:59
    ${before}    The Scheduler Is Triggered
    Should Be Equal As Integers    ${before}[triggered_count]    0
    Move The Clock    to=2026-03-01T02:00
    ${at}    The Scheduler Is Triggered
    Should Be Equal As Integers    ${at}[triggered_count]    1
    Pipeline Should Have Been Queued For    early    cost_billing    2026-03-01T02:00:00Z
    [Teardown]    Customer Makes No More Runs    early

A Time That Was Queued Is Not Queued Again
    [Documentation]    PIPE-C10: whoever evaluates a time once more, even as due, makes no second run of it.
    [Tags]    PIPE-C10
    [Setup]    A Customer In A Zone    again    UTC    at=2026-03-01T03:00    daily=0 4 * * *
    GROUP    When the scheduler is triggered at the time, and as if it had not been
        Move The Clock    to=2026-03-01T04:00
        The Scheduler Is Triggered
        Pipeline Is Due Again At    again    cost_billing    2026-03-01T04:00:00Z
        ${repeated}    The Scheduler Is Triggered
    END
    GROUP    Then there is one run, and the next is tomorrow's
        Should Be Equal As Integers    ${repeated}[triggered_count]    0
        Pipeline Should Have Been Queued For    again    cost_billing    2026-03-01T04:00:00Z
        Pipeline Should Be Due At    again    cost_billing    2026-03-02T04:00:00Z
    END
    [Teardown]    Customer Makes No More Runs    again

Missed Times Become One Run
    [Documentation]    PIPE-C10: nobody triggered for nine hours; the hourly pipeline runs once, for the first time that
    ...    was missed, and then in the next hour.
    [Tags]    PIPE-C10
    [Setup]    A Customer In A Zone    missed    UTC    at=2026-03-02T00:30    daily=0 20 * * *    often=0 * * * *
    Move The Clock    to=2026-03-02T10:15
    ${answer}    The Scheduler Is Triggered
    Should Be Equal As Integers    ${answer}[triggered_count]    1
    Pipeline Should Have Been Queued For    missed    usage_tracking    2026-03-02T01:00:00Z
    Pipeline Should Be Due At    missed    usage_tracking    2026-03-02T11:00:00Z
    [Teardown]    Customer Makes No More Runs    missed

Two In New York Is Seven In Winter
    [Documentation]    PIPE-C7: 2 am New York is 07:00Z in winter, in Berlin it is 01:00Z; no server's zone counts.
    [Tags]    PIPE-C7
    [Setup]    A Customer In A Zone    winter    America/New_York    at=2026-03-05T00:30    daily=0 2 * * *
    Pipeline Is Configured    winter    template_name=cost_analysis    schedule=0 2 * * *    timezone=Europe/Berlin
    Follow The Schedule    until=2026-03-06T07:00
    Pipeline Should Have Run At    winter    cost_billing    2026-03-05T07:00:00Z    2026-03-06T07:00:00Z
    Pipeline Should Have Run At    winter    cost_analysis    2026-03-05T01:00:00Z    2026-03-06T01:00:00Z
    [Teardown]    Customer Makes No More Runs    winter

The Hour That Is Missing In New York
    [Documentation]    PIPE-C9: on 8 March, 2:30 am does not exist in New York: the daily pipeline runs at 3:00 am, the
    ...    first instant after it; the hourly one every elapsed hour.
    [Tags]    PIPE-C9
    [Setup]    A Customer In A Zone    spring    America/New_York
    ...    at=2026-03-08T05:45    daily=30 2 * * *    often=0 * * * *
    Follow The Schedule    until=2026-03-08T08:00
    Pipeline Should Have Run At    spring    cost_billing    2026-03-08T07:00:00Z
    Pipeline Should Be Due At    spring    cost_billing    2026-03-09T06:30:00Z
    Pipeline Should Have Run At    spring    usage_tracking
    ...    2026-03-08T06:00:00Z    2026-03-08T07:00:00Z    2026-03-08T08:00:00Z
    [Teardown]    Customer Makes No More Runs    spring

The Hour That Is Missing In Berlin
    [Documentation]    PIPE-C9: on 29 March, 2:30 am does not exist in Berlin: 3:00 am, which is 01:00Z,
    ...    comes in its place.
    [Tags]    PIPE-C9
    [Setup]    A Customer In A Zone    lenz    Europe/Berlin
    ...    at=2026-03-28T23:45    daily=30 2 * * *    often=0 * * * *
    Follow The Schedule    until=2026-03-29T02:00
    Pipeline Should Have Run At    lenz    cost_billing    2026-03-29T01:00:00Z
    Pipeline Should Be Due At    lenz    cost_billing    2026-03-30T00:30:00Z
    Pipeline Should Have Run At    lenz    usage_tracking
    ...    2026-03-29T00:00:00Z    2026-03-29T01:00:00Z    2026-03-29T02:00:00Z
    [Teardown]    Customer Makes No More Runs    lenz

The Half Hour That Is Twice On Lord Howe Island
    [Documentation]    PIPE-C8: on 5 April the island's clocks go back by half an hour, at 15:00Z: 1:45 am is there
    ...    twice and runs once, every half hour elapsed runs.
    [Tags]    PIPE-C8
    [Setup]    A Customer In A Zone    howe    Australia/Lord_Howe
    ...    at=2026-04-04T14:15    daily=45 1 * * *    often=*/30 * * * *
    Follow The Schedule    until=2026-04-04T15:30
    Pipeline Should Have Run At    howe    cost_billing    2026-04-04T14:45:00Z
    Pipeline Should Be Due At    howe    cost_billing    2026-04-05T15:15:00Z
    Pipeline Should Have Run At    howe    usage_tracking
    ...    2026-04-04T14:30:00Z    2026-04-04T15:00:00Z    2026-04-04T15:30:00Z
    [Teardown]    Customer Makes No More Runs    howe

Two In New York Is Six In Summer
    [Documentation]    PIPE-C7: 2 am New York is 06:00Z in summer, in Berlin it is 00:00Z.
    [Tags]    PIPE-C7
    [Setup]    A Customer In A Zone    summer    America/New_York    at=2026-07-01T00:30    daily=0 2 * * *
    Pipeline Is Configured    summer    template_name=cost_analysis    schedule=0 2 * * *    timezone=Europe/Berlin
    Follow The Schedule    until=2026-07-02T06:00
    Pipeline Should Have Run At    summer    cost_billing    2026-07-01T06:00:00Z    2026-07-02T06:00:00Z
    Pipeline Should Have Run At    summer    cost_analysis    2026-07-02T00:00:00Z
    [Teardown]    Customer Makes No More Runs    summer

The Hour That Is Twice In Berlin
    [Documentation]    PIPE-C8: on 25 October, 2:30 am is there twice in Berlin, at 00:30Z and 01:30Z: the daily
    ...    pipeline runs at the first, the hourly one in both hours.
    [Tags]    PIPE-C8
    [Setup]    A Customer In A Zone    herbst    Europe/Berlin
    ...    at=2026-10-24T23:45    daily=30 2 * * *    often=0 * * * *
    Follow The Schedule    until=2026-10-25T02:00
    Pipeline Should Have Run At    herbst    cost_billing    2026-10-25T00:30:00Z
    Pipeline Should Be Due At    herbst    cost_billing    2026-10-26T01:30:00Z
    Pipeline Should Have Run At    herbst    usage_tracking
    ...    2026-10-25T00:00:00Z    2026-10-25T01:00:00Z    2026-10-25T02:00:00Z
    [Teardown]    Customer Makes No More Runs    herbst

The Hour That Is Twice In New York
    [Documentation]    PIPE-C8: on 1 November, 1:30 am is there twice in New York: once a day is
    ...    once, each hour is each.
    [Tags]    PIPE-C8
    [Setup]    A Customer In A Zone    fall    America/New_York
    ...    at=2026-11-01T04:45    daily=30 1 * * *    often=0 * * * *
    Follow The Schedule    until=2026-11-01T07:00
    Pipeline Should Have Run At    fall    cost_billing    2026-11-01T05:30:00Z
    Pipeline Should Be Due At    fall    cost_billing    2026-11-02T06:30:00Z
    Pipeline Should Have Run At    fall    usage_tracking
    ...    2026-11-01T05:00:00Z    2026-11-01T06:00:00Z    2026-11-01T07:00:00Z
    [Teardown]    Customer Makes No More Runs    fall
