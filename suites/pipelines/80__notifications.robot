*** Settings ***
Documentation     Customers are told of failed pipelines by e-mail, Slack and webhook: once for each final failure, and
...               never of an attempt that is retried. If this breaks, nobody looks after a pipeline that has failed,
...               or nobody believes the messages any more. The lab's service gives up after three attempts to send.

Resource          ../../resources/pipeline_notices.resource

Suite Setup       A Pipeline Service
Suite Teardown    The Pipeline Service Is Left
Test Timeout      3 minutes

Test Tags         pipelines    needs:pipelines    needs:database    needs:test-clock    needs:listeners

Name              Notifications


*** Test Cases ***
A Mail Tells Of A Failure After All Retries
    [Documentation]    PIPE-F3: four attempts fail; the last one is final, and there is one mail, which says so.
    [Tags]    PIPE-F3
    [Setup]    A Customer Is Told Of Failures By    mailed    email
    GROUP    When a pipeline fails until its retries are used up, and later another one fails
        ${run}    A Pipeline Fails Until Its Retries Are Used Up    mailed
        ${mails}    Mail Should Arrive    mailed@operators.example    about=${run}    within=${WITHIN}[pipeline]
        ${later}    A Pipeline Fails For Good    mailed
    END
    GROUP    Then there is one mail for each
        Mail Should Explain    ${mails}[0]    mailed    ${run}    after 3 retries    SERVICE_UNAVAILABLE
        Mail Should Arrive    mailed@operators.example    about=${later}    within=${WITHIN}[pipeline]
        Nothing Should Be Left To Send    mailed
        Mail Should Arrive    mailed@operators.example    times=2
        Notification Should Be Stored As Sent    ${run}    email    attempts=1
    END

A Retried Attempt Sends No Mail
    [Documentation]    PIPE-F3: who is told of failures that cure themselves does not read the mail that counts.
    [Tags]    PIPE-F3
    [Setup]    A Customer Is Told Of Failures By    spared    email
    GROUP    When a retry succeeds, and later another pipeline fails for good
        ${retried}    A Pipeline Fails Once And Then Succeeds    spared
        ${later}    A Pipeline Fails For Good    spared
    END
    GROUP    Then the only mail is about the later one
        Mail Should Arrive    spared@operators.example    about=${later}    within=${WITHIN}[pipeline]
        Nothing Should Be Left To Send    spared
        No Mail Should Have Arrived    spared@operators.example    about=${retried}
        Mail Should Arrive    spared@operators.example    times=1
    END

A Mail That Was Refused Is Sent Again
    [Documentation]    PIPE-F3: a mail server that is busy for a moment costs no mail, and nobody gets two.
    [Tags]    PIPE-F3    needs:faults
    [Setup]    A Customer Is Told Of Failures By    patient    email
    GROUP    When the mail server refuses the first two attempts
        The Mailbox Refuses Mail    times=2
        ${run}    A Pipeline Fails For Good    patient
    END
    GROUP    Then the third one brings the mail
        Mail Should Arrive    patient@operators.example    about=${run}    within=${WITHIN}[pipeline]
        Notification Should Be Stored As Sent    ${run}    email    attempts=3
        Mail Should Arrive    patient@operators.example    times=1
        There Should Be No Dead Letter    patient
    END

Slack Is Told Of A Failure
    [Documentation]    PIPE-F4: one message in Slack's format for a final failure, none for a retried attempt.
    [Tags]    PIPE-F4
    [Setup]    A Customer Is Told Of Failures By    slacker    slack
    GROUP    When a retry succeeds, and later another pipeline fails for good
        ${retried}    A Pipeline Fails Once And Then Succeeds    slacker
        ${run}    A Pipeline Fails For Good    slacker
    END
    GROUP    Then Slack has one message, which names run and reason
        ${calls}    Webhook Should Be Called    /slack/slacker    about=${run}    within=${WITHIN}[pipeline]
        Message Should Be In Slack's Format    ${calls}[0]    ${run}    AUTHENTICATION_FAILED    after 0 retries
        Nothing Should Be Left To Send    slacker
        Webhook Should Not Have Been Called    /slack/slacker    about=${retried}
        Notification Should Be Stored As Sent    ${run}    slack    attempts=1
        Webhook Should Be Called    /slack/slacker    times=1
    END

A Webhook Is Told The Facts Of A Failure
    [Documentation]    PIPE-F5: one call with the run's facts as JSON, for programs that act on it.
    [Tags]    PIPE-F5
    [Setup]    A Customer Is Told Of Failures By    hooked    webhook    email
    GROUP    When a retry succeeds, and later another pipeline fails until its retries are used up
        ${retried}    A Pipeline Fails Once And Then Succeeds    hooked
        ${run}    A Pipeline Fails Until Its Retries Are Used Up    hooked
    END
    GROUP    Then each channel has one message, and the webhook's has the facts
        ${calls}    Webhook Should Be Called    /webhook/hooked    about=${run}    within=${WITHIN}[pipeline]
        Call Should Tell The Facts Of    ${calls}[0]    hooked    ${run}
        Mail Should Arrive    hooked@operators.example    about=${run}    within=${WITHIN}[pipeline]
        Nothing Should Be Left To Send    hooked
        Webhook Should Not Have Been Called    /webhook/hooked    about=${retried}
        Notification Should Be Stored As Sent    ${run}    webhook    attempts=1
        Webhook Should Be Called    /webhook/hooked    times=1
    END

A Webhook Is Called Again While Its Receiver Fails
    [Documentation]    PIPE-F5: what a receiver did not take is sent again, as the same notification, until it does.
    [Tags]    PIPE-F5    needs:faults
    [Setup]    A Customer Is Told Of Failures By    stubborn    webhook
    GROUP    When the receiver answers twice with an error
        The Webhook Receiver Fails    /webhook/stubborn    times=2
        ${run}    A Pipeline Fails For Good    stubborn
    END
    GROUP    Then the third call is taken, and there is no fourth
        ${calls}    Webhook Should Be Called    /webhook/stubborn    times=3    within=${WITHIN}[pipeline]
        Calls Should Have Been Answered    ${calls}    500    500    200
        Notification Should Be Stored As Sent    ${run}    webhook    attempts=3
        Webhook Should Be Called    /webhook/stubborn    times=3
        There Should Be No Dead Letter    stubborn
    END

A Notification That Nobody Takes Becomes A Dead Letter
    [Documentation]    PIPE-F5: after the last attempt the notification is kept as a dead letter and sent no more.
    [Tags]    PIPE-F5    needs:faults
    [Setup]    A Customer Is Told Of Failures By    unheard    webhook
    GROUP    When the receiver answers every attempt with an error, and works again for a later failure
        The Webhook Receiver Fails    /webhook/unheard    times=3
        ${run}    A Pipeline Fails For Good    unheard
        Dead Letter Should Be Kept    unheard    ${run}    attempts=3    error=it answered 500
        ${later}    A Pipeline Fails For Good    unheard
    END
    GROUP    Then the later one is heard of, and the first one was tried three times
        Webhook Should Be Called    /webhook/unheard    about=${later}    within=${WITHIN}[pipeline]
        Nothing Should Be Left To Send    unheard
        ${calls}    Webhook Should Be Called    /webhook/unheard    about=${run}    times=3
        Calls Should Have Been Answered    ${calls}    500    500    500
    END
