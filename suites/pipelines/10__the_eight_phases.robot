*** Settings ***
Documentation     The eight phases of document 002, from two customers without anything to two customers without a
...               trace. Each phase prepares what it needs, so that it can be run alone; what the API says is
...               checked in the database too. If this breaks, pipelines do not run when customers think they do.

Resource          ../../resources/pipeline_checks.resource

Suite Setup       A Pipeline Service
Suite Teardown    The Pipeline Service Is Left
Test Timeout      6 minutes

Test Tags         pipelines    needs:pipelines    needs:database    needs:test-clock

Name              The Eight Phases


*** Test Cases ***
Two Customers Are Set Up
    [Documentation]    PIPE-1: onboarded with a plan and an API key; five credentials, encrypted; six schedules.
    [Tags]    PIPE-1
    The Customers Are Set Up
    GROUP    Customers and their API keys
        Customer Should Be Served    acme_corp    plan=PROFESSIONAL
        Customer Should Be Served    globex_inc    plan=SCALE
        API Keys Should Be Stored As Hashes    acme_corp    globex_inc
    END
    GROUP    Credentials and pipelines
        Credentials Should Be Encrypted    acme_corp    AWS    GCP
        Credentials Should Be Encrypted    globex_inc    AZURE    GCP    OPENAI
        Pipelines Should Be Scheduled    acme_corp    0 2 * * *    0 0 * * 1    0 3 * * *
        Pipelines Should Be Scheduled    globex_inc    0 2 * * *    0 0 1 * *    0 * * * *
    END

The Scheduler Queues What Is Due
    [Documentation]    PIPE-2: one trigger queues the due pipelines of both customers, each once.
    [Tags]    PIPE-2
    [Setup]    The Customers Are Set Up
    GROUP    When every pipeline is due and the scheduler is triggered
        Move The Clock    to=${MOMENTS}[Monday]
        ${answer}    The Scheduler Is Triggered
    END
    GROUP    Then runs of both customers are in the queue
        Should Be Equal As Integers    ${answer}[triggered_count]    6
        Should Be Equal As Integers    ${answer}[queued_count]    6
        Runs Should Be In State    acme_corp    PENDING    3
        Runs Should Be In State    globex_inc    PENDING    3
    END

The Queue Is Worked Off
    [Documentation]    PIPE-3: five items are processed; each goes from SCHEDULED over PENDING to RUNNING.
    [Tags]    PIPE-3
    [Setup]    Every Pipeline Has Been Queued
    GROUP    When five items of the queue are processed
        ${before}    The Queue
        ${processed}    Process Queue Items    5
        ${after}    The Queue
    END
    GROUP    Then the queue has five less, and these are running
        Should Be Equal As Integers    ${before}[queued]    6
        Should Be Equal As Integers    ${after}[queued]    1
        Should Be Equal As Integers    ${after}[running]    5
        Each Should Have Gone Through    ${processed}    SCHEDULED    PENDING    RUNNING
    END

Everybody Sees What Runs And What Waits
    [Documentation]    PIPE-4: yet to run, running, and three configured pipelines for each customer.
    [Tags]    PIPE-4
    [Setup]    Five Pipelines Have Been Processed
    ${acme}    Status Of    acme_corp
    ${globex}    Status Of    globex_inc
    Should Be Equal As Integers    ${acme}[total_configured]    3
    Should Be Equal As Integers    ${globex}[total_configured]    3
    Running And Yet To Run Should Be    acme_corp    ${acme}
    Running And Yet To Run Should Be    globex_inc    ${globex}
    Together There Should Be    ${acme}    ${globex}    running=5    yet_to_run=1

Pipelines Complete And Know Their Next Time
    [Documentation]    PIPE-5: COMPLETED, with the last run's time and the next one's by the cron schedule.
    [Tags]    PIPE-5
    [Setup]    Five Pipelines Have Been Processed
    Every Pipeline Has Been Completed
    GROUP    All of them are completed
        Runs Should Be In State    acme_corp    COMPLETED    3
        Runs Should Be In State    globex_inc    COMPLETED    3
    END
    GROUP    Each knows when it ran and when it runs next
        Next Run Should Be    acme_corp    cost_billing    2026-03-03T02:00:00Z
        Next Run Should Be    acme_corp    security_audit    2026-03-09T00:00:00Z
        Next Run Should Be    acme_corp    cost_analysis    2026-03-03T03:00:00Z
        Next Run Should Be    globex_inc    cost_billing    2026-03-03T02:00:00Z
        Next Run Should Be    globex_inc    compliance_check    2026-04-01T00:00:00Z
        Next Run Should Be    globex_inc    usage_tracking    2026-03-02T05:00:00Z
    END

A Quota Of One Lets One Pipeline Run
    [Documentation]    PIPE-6: with a daily limit of one, one run is executed and the others are skipped, which says
    ...    why: quota exceeded.
    [Tags]    PIPE-6
    [Setup]    Every Pipeline Has Been Completed
    GROUP    When acme may run one pipeline a day and three are due
        Quota Is Set    acme_corp    daily_limit=1
        Move The Clock    to=${MOMENTS}[next Tuesday]
        ${answer}    The Scheduler Is Triggered
        Every Pipeline Has Been Completed
    END
    GROUP    Then one ran and two were skipped
        Should Be Equal As Integers    ${answer}[skipped_count]    2
        Runs Should Be In State    acme_corp    COMPLETED    4
        ${skipped}    Runs Should Be In State    acme_corp    SKIPPED    2
        Each Should Say    ${skipped}    quota exceeded
    END

A Failed Pipeline Is Retried
    [Documentation]    PIPE-7: a failed run is marked FAILED, and its first retry is scheduled by itself.
    [Tags]    PIPE-7
    [Setup]    The Customers Are Set Up
    GROUP    When a pipeline fails
        ${run}    Pipeline Is Run    globex_inc    fails
        Process Queue Items    1
        Run Should Become    ${run}    PENDING    retry_attempt=1    within=${WITHIN}[pipeline]
    END
    GROUP    Then it was marked as failed, and its retry is due later
        Run Should Have Gone Through    ${run}    SCHEDULED    PENDING    RUNNING    FAILED    PENDING
        Retry Should Be Stored    ${run}    retry_attempt=1
    END

Deleted Customers Leave Nothing
    [Documentation]    PIPE-8: both customers are deleted with their keys, credentials, pipelines and runs.
    [Tags]    PIPE-8
    [Setup]    The Customers Are Set Up
    The Customers Are Deleted
    Customer Should Be Gone    acme_corp
    Customer Should Be Gone    globex_inc
