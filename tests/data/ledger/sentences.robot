*** Settings ***
Documentation    What a suite says about a history.

Library          LedgerLibrary
Library          histories.py

Suite Setup      A Ledger With Three Hundred Events


*** Test Cases ***
Every Event Is Stored Once And In Order
    [Documentation]    Rows of a table against what was sent.
    Every Event Should Be Stored Exactly Once
    Every Event Should Be Stored Exactly Once    place=event_*
    No Acknowledged Event Should Be Lost
    Duplicated Events Should Be At Most    0.1%
    Events With One Key Should Keep Their Order
    No Event Should Be Later Than    5ms

Delays Are Measured
    [Documentation]    Over all, and in the phases of a fault.
    ${longest}    Delivery Delay    max    <=    5ms
    Should Be Equal    ${longest}    5ms    type=timedelta
    Delivery Delay    p95    <    100ms
    Delivery Delay    median    ==    5ms    during=fault
    Delivery Delay    P50    >    4ms    during=After    fault=broker killed
    Delivery Delay    max    <=    4ms    start=acknowledged    end=stored

Recovery And Throughput Are Measured
    [Documentation]    The split of the recovery is returned.
    ${split}    Recovery Should Take At Most    2s
    Should Be Equal    ${split}[total]    2ms    type=timedelta
    Should Be Equal    ${split}[detect]    ${split}[total]
    Throughput    >=    100
    ${rate}    Throughput
    Should Be Equal As Integers    ${rate}    100

Counts Are Read
    [Documentation]    As a dictionary.
    ${counts}    Ledger Counts    within=1ms
    Should Be Equal    ${counts}[attempted]    300    type=int
    Should Be Equal    ${counts}[late]    300    type=int
    Should Be Equal    ${counts}[lost]    0    type=int
    Ledger Summary

Several Ledgers Live Side By Side
    [Documentation]    Each by its alias.
    Open Ledger    second
    ${happenings}    Sent    1
    Add To Ledger    ${happenings}    alias=second
    ${counts}    Ledger Counts    arrival=received    alias=second
    Should Not Contain    ${counts}    lost
    VAR    &{answer}    id=00000000-0000-0000-0000-000000000000    at=2026-01-31T12:00:00Z
    VAR    @{answers}    ${answer}
    Add To Ledger    ${answers}    kind=received    event=id    at=at    place=orders/0    alias=second
    Ledger Has Been Drained    alias=second
    Every Event Should Be Received Exactly Once    place=orders/*    alias=second


*** Keywords ***
A Ledger With Three Hundred Events
    [Documentation]    All of them stored 5 ms after their attempt, and a fault among them.
    Open Ledger
    ${happenings}    Sent    300
    Add To Ledger    ${happenings}
    ${begins}    Moment    100
    ${ends}    Moment    199    3
    Fault Begins In Ledger    broker killed    at=${begins}
    Fault Ends In Ledger    broker killed    at=${ends}
    Ledger Has Been Drained    the group's lag is 0
    ${rows}    Rows    300
    Add To Ledger    ${rows}    kind=stored    event=event_id    at=created_at    key=headers.key
    ...    position=headers.offset    place=event_logs
