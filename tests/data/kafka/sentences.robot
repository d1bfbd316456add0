*** Settings ***
Documentation       Sentences of the KafkaLibrary that hold.
Library             Collections
Library             KafkaLibrary
Suite Setup         Connect To Kafka    %{KAFKA}
Suite Teardown      Disconnect From Every Kafka
Test Timeout        1 minute

*** Variables ***
${SIGNING_KEY: Secret}    %{SIGNING_KEY}
&{TRACE}                  trace=t-1

*** Test Cases ***
One Event Arrives
    [Documentation]    It is acknowledged, and found by topic, key, header and field.
    Collect Events    one
    ${happened}    Publish Event    one    {"event_id": "e-1", "payload": {"state": "DONE"}}    key=k    headers=${TRACE}
    Length Should Be    ${happened}    2
    Should Start With    ${happened[1].place}    one/
    ${event}    Kafka Event Should Arrive    one    $.payload.state=DONE    key=k    headers=${TRACE}
    Should Be Equal    ${event.id}    e-1
    Should Be Equal    ${event.value}[payload][state]    DONE
    Should Be Equal    ${event.headers}[trace]    t-1
    Kafka Event Should Never Arrive    one    $.payload.state=FAILED    within=100ms

Many Envelopes Arrive
    [Documentation]    Signed, of a size, by key; and they are a history.
    Collect Events    many    name=history
    ${envelopes}    New Envelopes    300    WORKFLOW_STARTED    keys=10    size=600
    ${happened}    Publish Events    many    ${envelopes}
    Length Should Be    ${happened}    600
    ${events}    Kafka Events Should Arrive    30    many    key=key-3    name=history
    Length Should Be    ${events}    30
    ${received}    History Of Collected Events    history
    Length Should Be    ${received}    300
    ${last}    Collected Events    many    $.payload.number=299    name=history
    Length Should Be    ${last}    1
    ${all}    Stop Collecting Events    history
    Length Should Be    ${all}    300
    ${again}    Read All Events    many
    Length Should Be    ${again}    300

An Envelope Is Signed
    [Documentation]    The signing key is in nothing that is written.
    ${payload}    Create Dictionary    n=${1}
    ${envelope}    New Envelope    X    ${payload}    actor_id=me    signing_key=${SIGNING_KEY}    size=700
    Length Should Be    ${envelope}[security_context][hmac_signature]    64
    Publish Event    one    ${envelope}

Events Are Published At A Rate
    [Documentation]    In the foreground, and in the background until it ends or is stopped.
    ${envelopes}    New Envelopes    100    X    keys=3
    ${happened}    Publish Events At Rate    rate    ${envelopes}    500
    Length Should Be    ${happened}    200
    ${load}    Publish Events At Rate    rate    ${envelopes}    500    background=True
    Publishing Should End    ${load}
    ${load}    Publish Events At Rate    rate    ${envelopes}    10    background=True
    Stop Publishing    ${load}
    End Offset    rate    >=    200
    End Offset    rate    <    300

Offsets Are Read And Waited For
    [Documentation]    Of a topic and of a partition.
    ${before}    End Offsets    offsets
    Should Be Equal    ${before}[offsets/2]    ${0}
    Publish Event    offsets    x    partition=${2}
    End Offset    offsets/2    ==    1
    End Offset    offsets    ==    1    retry_for=2s
    Beginning Offset    offsets    ==    0
    ${double}    End Offset    offsets    then    value * 2
    Should Be Equal    ${double}    ${2}
    End Offset    offsets    validate    value < 2
    ${events}    Read All Events    offsets    since=${before}
    Length Should Be    ${events}    1
    ${count}    Topic Should Exist    offsets
    Should Be Equal    ${count}    ${3}
    ${topics}    Topics
    Should Be Equal    ${topics}[offsets]    ${3}

A Group Falls Behind And Catches Up
    [Documentation]    The lag is everything until it is committed.
    Publish Event    group    {"event_id": "1"}    key=k
    Consumer Lag    readers    group    ==    1
    Collect Events    group    group=readers    since=BEGINNING    name=member
    Kafka Event Should Arrive    group    $.event_id=1    name=member
    ${committed}    Commit Collected Offsets    member
    Dictionary Should Contain Value    ${committed}    ${1}
    Consumer Lag    readers    group    ==    0    retry_for=5s
    Committed Offset    nobody    group/0    ==    none
    Pause Collecting Events    member
    Publish Event    group    {"event_id": "2"}    key=k
    Kafka Event Should Never Arrive    group    $.event_id=2    name=member    within=200ms
    Consumer Lag    readers    group    ==    1
    Resume Collecting Events    member
    ${second}    Kafka Event Should Arrive    group    $.event_id=2    name=member
    Committed Offset    readers    group/${second.partition}    ==    1
    Collect Events Again From    group/${second.partition}    0    name=member
    Kafka Events Should Arrive    2    group    $.event_id=1    name=member
    Stop Collecting Events    member

A Transaction Is Left Open
    [Documentation]    It is aborted at the test's end, with a warning.
    Begin Kafka Transaction    writer
    ${happened}    Publish Event    transactions    {"event_id": "1"}
    Length Should Be    ${happened}    1

A Transaction Is Ended
    [Documentation]    Committed, then aborted.
    Begin Kafka Transaction    writer
    Publish Event    transactions    {"event_id": "2"}
    ${happened}    Commit Kafka Transaction
    Should Be Equal    ${happened[0].kind.name}    ACKNOWLEDGED
    Begin Kafka Transaction    writer
    Publish Event    transactions    {"event_id": "3"}
    ${happened}    Abort Kafka Transaction
    Should Be Equal    ${happened[0].kind.name}    REFUSED

Another Connection Has Another Alias
    [Documentation]    Its collectors are its own.
    Connect To Kafka    %{KAFKA}    alias=second    client_id=audit    idempotent=False    compression=GZIP
    Collect Events    one    alias=second
    Publish Event    one    {"event_id": "e-2"}    alias=second
    Kafka Event Should Arrive    one    $.event_id=e-2    alias=second
    Disconnect From Kafka    second
