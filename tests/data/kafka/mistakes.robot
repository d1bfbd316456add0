*** Settings ***
Documentation       Mistakes, each with the message that it must be told with; * stands for any text.
Library             KafkaLibrary
Suite Setup         Connect To Kafka    %{KAFKA}
Test Timeout        1 minute

*** Variables ***
${PASSWORD: Secret}    %{WRONG_PASSWORD}
@{NUMBERS}             ${1}    ${2}

*** Test Cases ***
Nobody Answers
    [Documentation]    Cannot connect to Kafka at 127.0.0.1:%{CLOSED_PORT}: Connection refused.
    Connect To Kafka    127.0.0.1:%{CLOSED_PORT}    alias=other    within=2s

No Server
    [Documentation]    The bootstrap servers 'broker' are not understood: expected host:port, several with commas between them, got 'broker'.
    Connect To Kafka    broker

Refused Credentials
    [Documentation]    The credentials were refused by Kafka at 127.0.0.1:* as 'reader': SASL_AUTHENTICATION_FAILED: Authentication failed: Invalid username or password.
    Connect To Kafka    127.0.0.1:%{REFUSING_PORT}    alias=other    user=reader    password=${PASSWORD}

A User Without A Password
    [Documentation]    A user and a password belong together: give both or neither.
    Connect To Kafka    %{KAFKA}    user=reader

A Missing Authority
    [Documentation]    The authorities' certificates cannot be read from /missing.pem: No such file or directory.
    Connect To Kafka    %{KAFKA}    ssl_cafile=/missing.pem

Unknown Alias
    [Documentation]    There is no Kafka connection called 'nobody'; open connections: default.
    Publish Event    one    x    alias=nobody

Unknown Topic
    [Documentation]    There is no topic 'onee'; topics: one, *
    Publish Event    onee    x

Unknown Topic To Collect
    [Documentation]    There is no topic 'onee'; topics: one, *
    Collect Events    onee

Unknown Partition
    [Documentation]    The topic 'one' has no partition 9; it has 0 to 2.
    End Offset    one/9

An Offset That Cannot Be Compared
    [Documentation]    The offset that readers has committed in offsets/0 is None, which cannot be compared with 7 by >=.
    Committed Offset    readers    offsets/0    >=    7

No Partition
    [Documentation]    'one' is no partition: write the topic and the partition's number, such as orders/2.
    Committed Offset    readers    one

Unknown Collector
    [Documentation]    There is no collector called 'nobody'; collectors: none.
    Kafka Event Should Arrive    one    name=nobody

Broken JSONPath
    [Documentation]    '$.payload[' is no JSONPath (RFC 9535): *.
    Collect Events    one
    Kafka Event Should Arrive    one    $.payload[

No JSONPath
    [Documentation]    'state=DONE' is no JSONPath: it must begin with $, such as $.payload.state=COMPLETED.
    Collect Events    one
    Kafka Event Should Arrive    one    state=DONE

No Rate
    [Documentation]    The rate must be more than 0 events per second, got 0.
    Publish Events At Rate    one    ${NUMBERS}    0

An Event That Never Came
    [Documentation]    No event on one with $.n=3 arrived within 0.2 s; 2 events arrived, the last ones:*
    Collect Events    one
    Publish Events    one    ${NUMBERS}
    Kafka Events Should Arrive    2    one
    Kafka Event Should Arrive    one    $.n=3    within=200ms

An Event That Must Not Come
    [Documentation]    An event on one with key 'k' must not arrive, but did: one/*@* key='k' x.
    Collect Events    one
    Publish Event    one    x    key=k
    Kafka Event Should Arrive    one    key=k
    Kafka Event Should Never Arrive    one    key=k

An Event Without Anything
    [Documentation]    An event for 'one' has neither a key nor a value: give it one of them.
    Publish Event    one

A Secret That Was Lost
    [Documentation]    The text '<secret>' was about to be sent instead of a secret's value:*
    Publish Event    one    Token ${PASSWORD}

Too Large
    [Documentation]    1 of 1 events were not acknowledged: 1 refused: MESSAGE_SIZE_TOO_LARGE: the event has more than * bytes (1 x).
    ${envelope}    New Envelope    X    size=1100000
    Publish Event    one    ${envelope}

Too Small
    [Documentation]    The envelope has * bytes, more than the 10 that it should have.
    New Envelope    X    size=10

Nobody To Sign For
    [Documentation]    An envelope without a security context cannot be signed: say who acts.
    New Envelope    X    signing_key=${PASSWORD}

No Envelopes
    [Documentation]    count must be at least 1, got 0.
    New Envelopes    0    X

A Lag That Is Not Right
    [Documentation]    The lag of readers on offsets '0' (int) should be '7' (int)*
    Consumer Lag    readers    offsets    ==    7    retry_for=200ms

A Lag That Is No Number
    [Documentation]    The lag of readers on offsets is a whole number, or none: it cannot be compared with 'much'.
    Consumer Lag    readers    offsets    ==    much

An Expectation Without An Operator
    [Documentation]    An expected value needs an operator before it, such as ==.
    Consumer Lag    readers    offsets    assertion_expected=7

An Offset That Is Not Committed
    [Documentation]    The offset that readers has committed in offsets/0 'None' (nonetype) should be '7' (int)
    Committed Offset    readers    offsets/0    ==    7

A State That Cannot Be Told
    [Documentation]    Kafka at * could not describe the group 'readers': its brokers do not know that request.
    Consumer Group State    readers    ==    STABLE

Members That Cannot Be Told
    [Documentation]    Kafka at * could not describe the group 'readers': its brokers do not know that request.
    Consumer Group Members    readers

A Topic That Cannot Be Created
    [Documentation]    Kafka at * takes no requests for topics: its brokers name no controller (librdkafka's mock cluster has none; the lab creates its topics).
    Create Topic    new

A Topic That Cannot Be Deleted
    [Documentation]    Kafka at * takes no requests for topics: *
    Delete Topic    one

Nothing To Commit
    [Documentation]    The collector 'default' is in no consumer group: it has nothing to commit.
    Collect Events    one
    Commit Collected Offsets

No Transaction
    [Documentation]    There is no open Kafka transaction to commit.
    Commit Kafka Transaction

No Transaction To Abort
    [Documentation]    There is no open Kafka transaction to abort.
    Abort Kafka Transaction

Nothing To Read
    [Documentation]    Say which topics to collect.
    Collect Events

No Offsets
    [Documentation]    Say from which offsets to read, such as {'orders/0': 17}: none is given.
    &{offsets}    Create Dictionary
    Read All Events    one    since=${offsets}

Not Stopped In Time
    [Documentation]    Publishing did not end within 0.2 s: * of 100 events were sent so far.
    ${envelopes}    New Envelopes    100    X
    ${load}    Publish Events At Rate    one    ${envelopes}    10    background=True
    Publishing Should End    ${load}    within=200ms
