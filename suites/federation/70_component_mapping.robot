*** Settings ***
Documentation     What a customer orders on A is what B allocates, converted by the configuration's factors
...               (document 000, step 3). If this breaks, customers get, and pay for, the wrong amount.

Resource          ../../resources/federation.resource

Suite Setup       Start The Lab
Suite Teardown    The Federation Is Taken Down
Test Timeout      3 minutes

Test Tags         federation    mapping    needs:provisioning

Name              Component Mapping


*** Test Cases ***
A Passthrough Component Keeps Its Amount
    [Documentation]    FED-N1: the same name and amount on both sides.
    [Tags]    FED-N1
    A Federation Between Two Waldurs    passthrough
    A Resource Has Been Created    cpu=7
    Limits Should Be    B    cpu=7

One Component Is Multiplied By Its Factor
    [Documentation]    FED-N2: 2 node hours x 128.
    [Tags]    FED-N2
    A Federation Between Two Waldurs    node hours
    A Resource Has Been Created    node_hours=2
    Limits Should Be    B    cpu_k_hours=256

One Component Becomes Several
    [Documentation]    FED-N3: 6 node hours x 128, x 4 and x 0.5.
    [Tags]    FED-N3
    A Federation Between Two Waldurs    one to many
    A Resource Has Been Created    node_hours=6
    Limits Should Be    B    cpu_k_hours=768    gpu_hours=24    storage_gb_hours=3

Several Components Add Up To One
    [Documentation]    FED-N4: 5 cpu hours and 3 gpu hours x 10; a limit of zero counts as nothing and is sent.
    [Tags]    FED-N4
    A Federation Between Two Waldurs    many to one
    GROUP    Several amounts add up
        A Resource Has Been Created    cpu_hours=5    gpu_hours=3
        Limits Should Be    B    credits=35
    END
    GROUP    Zero is an amount like any other
        A Resource Has Been Created    cpu_hours=0    gpu_hours=0
        Limits Should Be    B    credits=0
    END
