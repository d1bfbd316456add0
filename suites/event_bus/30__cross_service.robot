*** Settings ***
Documentation     Workflows ask OnexTree and stamping, which Consul finds. If this breaks, one service that does not
...               answer takes the others along.

Resource          ../../resources/event_bus_intelligence.resource

Suite Setup       An Event Bus That Knows A Project
Suite Teardown    The Event Bus Is Left
Test Teardown     The Services Should Be Healthy
Test Timeout      2 minutes

Test Tags         event-bus    needs:event-bus    needs:faults

Name              Cross Service


*** Test Cases ***
Intelligence Becomes Part Of The Result
    [Documentation]    BUS-3.1 onextree_intelligence_integration_complete_flow: OnexTree is asked, and what it says is
    ...    kept.
    [Tags]    BUS-3.1
    ${workflow}    Run Workflow    content=${ABOUT_SECURITY}    intelligence=True
    The Workflow Should Have Intelligence    ${workflow}    security_analysis
    Should Not Be Empty    ${workflow}[intelligence][recommendations]

Intelligence Costs Little
    [Documentation]    BUS-3.2 workflow_performance_with_vs_without_intelligence: asking must be worth its time.
    [Tags]    BUS-3.2
    ${files}    Make Files    ${BUS}[samples]    seed=32
    ${without}    Run Workflows That Complete    ${files}
    ${with}    Run Workflows    ${files}    intelligence=True
    All Should Have Intelligence    ${with}
    Percentile Of Times    ${without}    p95    <    ${BUS}[without_intelligence]
    Percentile Of Times    ${with}    p95    <    ${BUS}[with_intelligence]
    Overhead Of Times    ${with}    ${without}    p50    <    ${BUS}[overhead]

Consul Tells Where A Service Is
    [Documentation]    BUS-3.3 service_discovery_via_consul: nobody configures addresses, and nobody waits for them.
    [Tags]    BUS-3.3
    ${address}    Address Of Service    STAMPING
    ${located}    Service Should Be Located By    metadata-stamping-service    consul
    Should Be Equal    ${located}[url]    ${address}
    ${answers}    Locate Service    metadata-stamping-service    times=${BUS}[samples]
    Percentile Of Times    ${answers}    p95    <    ${BUS}[discovery]

Without Consul The Fallback Is Told
    [Documentation]    BUS-3.4 fallback_to_localhost_when_consul_unavailable: the services go on finding each other.
    [Tags]    BUS-3.4
    Take Consul Down
    ${located}    Service Should Be Located By    metadata-stamping-service    fallback
    Should Not Be Empty    ${located}[reason]
    ${workflow}    Run Workflow
    Should Be Equal    ${workflow}[state]    COMPLETED
    ${settings}    Documented Event Bus Settings
    Should End With    ${settings}[discovery][fallback][metadata-stamping-service]    :8053

OnexTree Is Protected By A Breaker
    [Documentation]    BUS-3.5 circuit_breaker_onextree_service_protection: after five failures nobody waits for it.
    [Tags]    BUS-3.5
    ${files}    Make Files    205    size=1000    seed=35
    Kill Service    ONEXTREE
    Run Workflows    ${files}[:5]    intelligence=True
    Circuit Breaker Should Be    ORCHESTRATOR    onextree    open
    ${others}    Run Workflows That Complete    ${files}[5:]    intelligence=True
    The Workflow Should Have Done Without Intelligence    ${others}[-1]
    Percentile Of Times    ${others}    p95    <    ${BUS}[without_intelligence]

Each Service Has A Breaker Of Its Own
    [Documentation]    BUS-3.6 independent_circuit_breakers_per_service: OnexTree's failures are not stamping's.
    [Tags]    BUS-3.6
    ${files}    Make Files    5    size=1000    seed=36
    Kill Service    ONEXTREE
    Run Workflows    ${files}    intelligence=True
    Circuit Breaker Should Be    ORCHESTRATOR    onextree    open
    Circuit Breaker Should Be    ORCHESTRATOR    stamping    closed
    ${workflow}    Run Workflow
    Should Be Equal    ${workflow}[stamp][source]    metadata_stamping

A Slow OnexTree Is Not Waited For
    [Documentation]    BUS-3.7 onextree_timeout_handling_30s: when its time is over, the workflow goes on without it.
    [Tags]    BUS-3.7
    The Orchestrator Should Wait At Most    onextree_timeout    PT30S
    Pause Service    ONEXTREE
    ${workflow}    Run Workflow    intelligence=True
    The Workflow Should Have Done Without Intelligence    ${workflow}
    Should Be True    1 <= $workflow['took'].total_seconds() < 2

Slow Stamping Fails The Workflow
    [Documentation]    BUS-3.8 metadata_stamping_timeout_handling_5s: there may be a stamp or not, so nothing stands in.
    [Tags]    BUS-3.8
    The Orchestrator Should Wait At Most    stamping_timeout    PT5S
    Pause Service    STAMPING
    ${workflow}    Run Workflow
    Should Be Equal    ${workflow}[state]    FAILED
    Should Contain    ${workflow}[error_message]    timeout
    Should Be True    1 <= $workflow['took'].total_seconds() < 2

Without OnexTree Workflows Do Without
    [Documentation]    BUS-3.9 fallback_onextree_unavailable_skip_intelligence: none is better than something made up.
    [Tags]    BUS-3.9
    Kill Service    ONEXTREE
    ${workflow}    Run Workflow    intelligence=True
    The Workflow Should Have Done Without Intelligence    ${workflow}
    Should Be Equal    ${workflow}[stamp][source]    metadata_stamping

Without Stamping The Orchestrator Hashes
    [Documentation]    BUS-3.10 fallback_metadata_stamping_in_memory_hash: the right hash, and it says where it is from.
    [Tags]    BUS-3.10
    ${files}    Make Files    1    seed=310
    Kill Service    STAMPING
    ${workflow}    Run Workflow    ${files}[0]
    Should Be Equal    ${workflow}[state]    COMPLETED
    Should Be Equal    ${workflow}[stamp][source]    in_memory_fallback
    Start Service Again    STAMPING
    The Hash Should Be The One Of The Service    ${workflow}    ${files}[0]

All Services Work Together
    [Documentation]    BUS-3.11 cross_service_coordination_with_intelligence_e2e: one request, one row with all of it.
    [Tags]    BUS-3.11
    ${workflow}    Run Workflow    content=${ABOUT_SECURITY}    intelligence=True
    The Workflow Should Have Intelligence    ${workflow}    security_analysis
    Should Be Equal    ${workflow}[stamp][source]    metadata_stamping
    The Row Should Tell The Same    ${workflow}
