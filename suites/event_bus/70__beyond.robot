*** Settings ***
Documentation     Services that fail by chance, two regions, and what has become slower. If this breaks, the bus
...               works in a demonstration and not where many depend on it.

Resource          ../../resources/event_bus_beyond.resource

Suite Setup       An Event Bus
Suite Teardown    The Event Bus Is Left
Test Setup        Open Ledger
Test Timeout      5 minutes

Test Tags         event-bus    needs:event-bus

Name              Beyond


*** Test Cases ***
Two Regions Have The Same
    [Documentation]    BUS-F4: what one region publishes is in the other once and in order, also after a cut.
    [Tags]    BUS-F4    needs:faults
    A Second Region Is Watched
    ${events}    Probes    300    keys=30
    GROUP    When the regions are cut off from each other, and connected again
        Probes Are Published At Home    ${events}[:100]
        Cut The Regions Off
        Probes Are Published At Home    ${events}[100:200]
        Connect The Regions
        Probes Are Published At Home    ${events}[200:]
    END
    GROUP    Then the other region has each event once, in order
        What Arrived Away Goes Into The Ledger
        Every Event Should Be Received Exactly Once
        Events With One Key Should Keep Their Order    arrival=received
    END

Services Fail By Chance
    [Documentation]    BUS-F2: six failures that a seed chooses, while workflows run: each ends once.
    [Tags]    BUS-F2    needs:faults
    ${files}    Make Files    300    size=1000    seed=72
    Submit Workflows    ${files}    namespace=chance
    Let Services Fail At Random    6    seed=4
    So Many Should Have Ended    300    chance

Nothing Has Become Slower
    [Documentation]    BUS-F5: as ratios to bare requests of the same run, beside those that were stored.
    [Tags]    BUS-F5
    ${files}    Make Files    100    size=1000    seed=75
    ${stamps}    Stamp Files    ${files}    beside=STAMPING
    Ratio Of Times    ${stamps}    p10    <=    ${BUS_BASELINE}[stamp]
    ${found}    Find Stamps    ${stamps}    beside=STAMPING
    Ratio Of Times    ${found}    p10    <=    ${BUS_BASELINE}[query]
    ${workflows}    Run Workflows That Complete    ${files}    beside=STAMPING
    Ratio Of Times    ${workflows}    p10    <=    ${BUS_BASELINE}[workflow]

A Report Tells The Distance To Each Bound
    [Documentation]    BUS-F6: who decides about a release reads one table, not a log.
    [Tags]    BUS-F6
    ${files}    Make Files    ${BUS}[samples]    seed=76
    ${hashes}    Hash Files    ${files}
    ${published}    Publish By The Orchestrator    ${BUS}[samples]
    Report Times    hashing 64 KiB    ${hashes}    ${BUS}[hash]    field=hash_ms
    Report Times    publishing an event    ${published}    ${BUS}[publish]    field=took_ms
    ${report}    Write Report Of Times    ${OUTPUT DIR}/event-bus-report.md
    Should Contain    ${report}    | hashing 64 KiB | ${BUS}[samples] |
    Should Contain    ${report}    | publishing an event | ${BUS}[samples] |
