*** Settings ***
Documentation     Files are hashed, stamped, and found again by their hash. If this breaks, nobody can tell whether a
...               file is the one that was stamped.

Resource          ../../resources/event_bus_stamping.resource

Suite Setup       An Event Bus
Suite Teardown    The Event Bus Is Left
Test Timeout      2 minutes

Test Tags         event-bus    needs:event-bus

Name              Stamping


*** Test Cases ***
A File Is Stamped, Told And Stored
    [Documentation]    BUS-2.1 metadata_stamping_complete_flow_e2e: the stamp is answered, published, stored and found.
    [Tags]    BUS-2.1
    The Bus Is Watched    METADATA_STAMPED
    ${files}    Make Files    1    seed=21
    ${stamp}    Stamp File    ${files}[0]
    GROUP    Then the bus, the table and a query tell the same
        The Stamp Should Be Told    ${stamp}
        The Stamp Should Be Stored    ${stamp}    ${files}[0]
        The Stamp Should Be Found In The Database    ${stamp}
    END

Hashing Is Quick
    [Documentation]    BUS-2.2: hashing a file of 64 KiB must not be what a request waits for.
    [Tags]    BUS-2.2
    ${files}    Make Files    ${BUS}[samples]    seed=22
    ${hashes}    Hash Files    ${files}
    Percentile Of Times    ${hashes}    p95    <    ${BUS}[hash]    field=hash_ms

The Hash Is BLAKE3 Every Time
    [Documentation]    BUS-2.4: the values are those that BLAKE3's authors and everybody else compute.
    [Tags]    BUS-2.4
    The Hash Should Be    ${EMPTY}    ${BLAKE3}[nothing]
    The Hash Should Be    abc    ${BLAKE3}[abc]
    The Hash Should Be    hello world    ${BLAKE3}[hello world]
    The Same File Should Have The Same Hash A Hundred Times

Stamping Again Gives The Same Stamp
    [Documentation]    BUS-2.5: a request that is repeated must not make a second stamp, nor a second row.
    [Tags]    BUS-2.5
    ${files}    Make Files    1    size=1000    seed=25
    GROUP    When a file is stamped three times
        ${first}    Stamp File    ${files}[0]
        ${second}    Stamp File    ${files}[0]
        ${third}    Stamp File    ${files}[0]
    END
    GROUP    Then it has one stamp, and one row
        Should Be Equal    ${second}[stamp_id]    ${first}[stamp_id]
        Should Be Equal    ${third}[stamp_id]    ${first}[stamp_id]
        The Stamp Should Be Stored    ${first}    ${files}[0]
    END

A Stamp Says What It Is Of
    [Documentation]    BUS-2.6: O.N.E. v0.1: fields, namespaces, and that a changed file no longer fits its stamp.
    [Tags]    BUS-2.6
    ${files}    Make Files    1    size=1000    seed=26
    ${stamp}    Stamp File    ${files}[0]    namespace=acme.documents
    GROUP    Then the stamp follows O.N.E. v0.1, and guards the file
        The Stamp Should Follow The Protocol    ${stamp}    acme.documents
        The Stamp Should Be Found Only In    ${stamp}    acme.documents
        The Stamped Content Should Be Valid    ${stamp}
        A Changed Content Should Not Be Valid    ${stamp}
    END

Several Files Are Stamped Together
    [Documentation]    BUS-2.7: ten files in one request; an empty batch and a wrong hash are refused with their codes.
    [Tags]    BUS-2.7
    ${files}    Make Files    10    seed=27
    ${batch}    Stamp Files Together    ${files}
    Should Be Equal    ${batch}[successful]    ${10}
    Should Be True    $batch['took'].total_seconds() < 0.5
    Stamping Should Be Refused    EMPTY_BATCH_REQUEST    Stamp Files Together    ${NO_FILES}
    Stamping Should Be Refused    INVALID_HASH_FORMAT    Find Stamp    no-hash
    Stamping Should Be Refused    STAMP_NOT_FOUND    Find Stamp    ${BLAKE3}[nobody]

A Stamp Is Found Quickly
    [Documentation]    BUS-2.3: whoever opens a file looks its stamp up, so the table must answer at once.
    [Tags]    BUS-2.3
    ${files}    Make Files    ${BUS}[samples]    size=1000    seed=23
    ${stamps}    Stamp Files    ${files}
    All Stamps Should Be Stored    ${stamps}
    ${found}    Find Stamps    ${stamps}
    Percentile Of Times    ${found}    p95    <    ${BUS}[stamp_query]
