*** Settings ***
Documentation     The same faults with the agent's own waits, which the lab shortens elsewhere: retries every five
...               seconds, heart-beats every ten (document 000, known issues 1 and 4).

Resource          ../../resources/federation.resource

Suite Setup       A Federation That Listens To Events    pace=own
Suite Teardown    The Federation Is Taken Down
Test Timeout      5 minutes

Test Tags         federation    slow    needs:faults

Name              The Agent At Its Own Pace


*** Test Cases ***
One Failure To Set An Order Done Is Retried After Five Seconds
    [Documentation]    FED-K1: the agent's own retry makes up for one 500.
    [Tags]    FED-K1
    Setting An Order Done Fails On A    times=1
    ${order}    Order A Resource On A    node_hours=1
    Let The Agent Work Until The Order Has Ended    ${order}
    Order Should Be    ${order}    done
    Agent Should Have Been Answered    A    POST    *set_state_done/    500    times=1

An Order That Cannot Be Set Done Is Never Lost
    [Documentation]    FED-K1: ten attempts in fifty seconds fail; the order waits and is done once A has recovered.
    [Tags]    FED-K1
    Setting An Order Done Fails On A
    ${order}    Order A Resource On A    node_hours=1
    Let The Agent Work Until The Order Has Ended    ${order}    cycles=2
    Order Should Be    ${order}    executing
    Agent Should Have Been Answered    A    POST    *set_state_done/    500    times=10
    Setting An Order Done Works Again On A
    Run Agent Cycle
    Order Should Be    ${order}    done

A Silent Connection Is Noticed And Replaced
    [Documentation]    FED-K4: fifteen seconds of silence end the connection; the agent opens another one.
    [Tags]    FED-K4
    ${connection}    Channel Should Be Connected    source    within=${WITHIN}[connection]
    The Heart Beats Of A Fall Silent
    Channel Should Be Disconnected    source    ${connection}    within=${WITHIN}[silence]
    # First: what A says on the connection that was given up would still be read, and end the new one.
    Channel Should Be Connected    source    within=${WITHIN}[silence]
    The Heart Beats Of A Are Back
    The Agent Should Reconnect To A
