*** Settings ***
Documentation    Every test fails, with the message that its documentation tells.

Library          LedgerLibrary
Library          histories.py

Test Setup       A Ledger In Which Two Of Four Events Are Stored


*** Test Cases ***
Lost Events
    [Documentation]    Not every one of 4 attempted events was stored exactly once: 2 lost.*
    ...    - lost: 00000000-0000-0000-0000-000000000001 (key key-1), first attempted at *, last seen: acknowledged at *
    ...    - lost: 00000000-0000-0000-0000-000000000003*
    Every Event Should Be Stored Exactly Once

Lost Events Only
    [Documentation]    Not every one of 4 acknowledged events was stored: 2 lost.*000003 (key key-1)*
    No Acknowledged Event Should Be Lost

Nothing Received
    [Documentation]    Not every one of 4 attempted events was received exactly once: 4 lost.*
    Every Event Should Be Received Exactly Once

Stored Twice
    [Documentation]    100% of 2 events were stored more than once, expected at most 0.1%: 2 duplicated.*
    The Table Is Added
    Duplicated Events Should Be At Most    0.1%

No Share
    [Documentation]    ValueError: Argument 'share' got value '0.1' that cannot be converted to Share: A share is*
    Duplicated Events Should Be At Most    0.1

No Order
    [Documentation]    No two attempted events with the same key were received in one place, so they have no order.
    Events With One Key Should Keep Their Order    arrival=received

Wrong Order
    [Documentation]    Not every event was received before those with its key that were attempted later: 1 reordered.*
    ...    - reordered: 00000000-0000-0000-0000-000000000000*overtaken by 00000000-0000-0000-0000-000000000002*
    ${rows}    Rows    3    0    1
    Add To Ledger    ${rows}    kind=received    event=event_id    at=created_at    key=headers.key    place=topic
    ${first}    Moment    1    50
    VAR    &{row}    id=00000000-0000-0000-0000-000000000000    at=${first}
    VAR    @{rows}    ${row}
    Add To Ledger    ${rows}    kind=received    event=id    at=at    place=topic
    Events With One Key Should Keep Their Order    arrival=received

Late Events
    [Documentation]    Not every event was stored within 4 ms after its first attempt: 2 late, 2 lost.*
    No Event Should Be Later Than    4ms

Not Drained
    [Documentation]    The ledger has not been drained, so that an event which is missing may still come: wait*
    Open Ledger
    ${happenings}    Sent    1
    Add To Ledger    ${happenings}
    No Acknowledged Event Should Be Lost

Drained Too Early
    [Documentation]    The ledger was said to be drained at *, but late was stored on event_logs at *
    VAR    &{row}    id=late    at=2200-01-01
    VAR    @{rows}    ${row}
    Add To Ledger    ${rows}    kind=stored    event=id    at=at    place=event_logs
    Every Event Should Be Stored Exactly Once

No Ledger
    [Documentation]    There is no ledger called 'other': 'Open Ledger' first. Open ledgers: default.
    Ledger Counts    alias=other

No Place
    [Documentation]    Nothing in the ledger happened on 'orders'; places: '', 'event_logs'.
    Ledger Counts    place=orders

Too Few Samples
    [Documentation]    p95 of the delay from attempted to stored needs at least 200 samples, so that 10 lie beyond it*
    Delivery Delay    p95    <=    100ms

No Percentile
    [Documentation]    ValueError: Argument 'percentile' got value 'ninety' that cannot be converted to Percentile: A*
    Delivery Delay    ninety    <=    100ms

Delay Without End
    [Documentation]    max of the delay from attempted to stored has no end: 2 of 4 acknowledged events have*
    Delivery Delay    max    <=    100ms

Wrong Delay
    [Documentation]    max of the delay from attempted to acknowledged, of 4 samples, in ms: '1.0' (float) should*
    Delivery Delay    max    <    1ms    end=acknowledged

Wrong Delay With An Own Message
    [Documentation]    Got 1.0 ms, not 2.0
    Delivery Delay    max    ==    2ms    Got {value} ms, not {expected}    end=acknowledged

No Fault
    [Documentation]    The ledger knows no fault; faults: none.
    Delivery Delay    max    during=fault

Operator Forgotten
    [Documentation]    An operator such as <= and an expected value belong together: give both, or none.
    Delivery Delay    max    assertion_expected=1ms

Expected Value Forgotten
    [Documentation]    An operator such as <= and an expected value belong together: give both, or none.
    Throughput    >=

Operator For Texts
    [Documentation]    The operator *= is not for numbers: use ==, !=, <, <=, > or >=.
    Throughput    contains    1

Slow
    [Documentation]    Events stored per second: '50.0' (float) should be greater than '50.0' (float)
    Throughput    >    50

Never Recovered
    [Documentation]    The backlog of broker (1 events) was never all stored: 1 lost.*- lost: *0001 (key key-1), first*
    A Fault Lasts From Event 1 To Event 2
    Recovery Should Take At Most    2s

Slow Recovery
    [Documentation]    Recovery should take at most 0.002 s, but all was well only 0.003 s after broker ended at *
    ...    detect 0.003 s, reconnect 0 s, drain 0 s (backlog: 1 events)
    ${rows}    Rows    4
    Add To Ledger    ${rows}    kind=received    event=event_id    at=created_at
    ${begins}    Moment    1    -1
    ${ends}    Moment    1    2
    Fault Begins In Ledger    broker    at=${begins}
    Fault Ends In Ledger    broker    at=${ends}
    Recovery Should Take At Most    2ms    arrival=received

Fault That Lasts
    [Documentation]    The fault 'broker' lasts since *: nothing has recovered yet.
    Fault Begins In Ledger    broker
    Recovery Should Take At Most    2s

Fault That Never Began
    [Documentation]    The fault 'broker' cannot end, as it does not last; faults that last: none.
    Fault Ends In Ledger    broker

Missing Field
    [Documentation]    Row 1 has no field 'id'; its fields: event_id, created_at, headers: {'event_id': UUID(*
    ${rows}    Rows    1
    Add To Ledger    ${rows}    kind=stored    event=id    at=created_at

Fields Forgotten
    [Documentation]    Rows need kind, event and at to be understood; missing: kind, at.
    ${rows}    Rows    1
    Add To Ledger    ${rows}    event=event_id

No Fields At All
    [Documentation]    Name the fields of the rows: kind=stored, event=..., at=...; only happenings need no names.
    ${rows}    Rows    1
    Add To Ledger    ${rows}

Fields For Happenings
    [Documentation]    These are happenings, which tell by themselves what happened: they need no kind and no fields.
    ${happenings}    Sent    1
    Add To Ledger    ${happenings}    kind=stored    event=event    at=at_ns


*** Keywords ***
A Ledger In Which Two Of Four Events Are Stored
    [Documentation]    Events 1 and 3 are acknowledged and not stored.
    Open Ledger
    ${happenings}    Sent    4
    Add To Ledger    ${happenings}
    The Table Is Added
    Ledger Has Been Drained

The Table Is Added
    [Documentation]    Again, when it was already.
    ${rows}    Rows    4    1    3
    Add To Ledger    ${rows}    kind=stored    event=event_id    at=created_at    place=event_logs

A Fault Lasts From Event 1 To Event 2
    [Documentation]    Called broker.
    ${begins}    Moment    1
    ${ends}    Moment    2
    Fault Begins In Ledger    broker    at=${begins}
    Fault Ends In Ledger    broker    at=${ends}
