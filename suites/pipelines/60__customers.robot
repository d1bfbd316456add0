*** Settings ***
Documentation     What belongs to one customer: nobody else sees it, keys open and credentials stay secret as long as
...               they should, a deletion takes everything along, and a mistake is told, not stored. If this breaks,
...               customers read each other's bills.

Resource          ../../resources/pipeline_secrets.resource

Suite Setup       A Pipeline Service
Suite Teardown    The Pipeline Service Is Left
Test Timeout      2 minutes

Test Tags         pipelines    needs:pipelines    needs:database    needs:test-clock

Name              Customers


*** Test Cases ***
One Customer Finds Nothing Of Another
    [Documentation]    PIPE-C1: another customer's id, pipelines, runs, credentials and quota are 404, to read as to
    ...    change, whoever knows the ids; lists show one's own only.
    [Tags]    PIPE-C1
    GROUP    Given two customers who have everything
        ${run}    A Customer With Everything    umbrella
        A Customer With Everything    initech
        ${before}    What Is Stored Of    umbrella
    END
    GROUP    Then one finds nothing of the other, and changes nothing
        Pages Should Be Hidden    of=umbrella    from=initech
        Things Should Be Hidden    of=umbrella    from=initech    run=${run}
        Changes Should Be Refused    of=umbrella    from=initech
        What Is Stored Should Still Be    umbrella    ${before}
    END
    GROUP    And each sees what is their own
        Lists Should Show Only Ones Own    umbrella
        Lists Should Show Only Ones Own    initech
    END

A Rotated Key Is Dead At Once
    [Documentation]    PIPE-C2: the new key works, the old one opens nothing from that moment on, and the list of keys
    ...    shows neither key nor hash. A key that leaked must be of no use.
    [Tags]    PIPE-C2
    [Setup]    Customer Is Onboarded    hooli    STARTER
    Key Should Open    hooli    name=hooli
    The First Key Is Rotated    hooli    new_session=hooli with the new key
    Key Should Open    hooli with the new key    name=hooli
    Key Should Open Nothing    hooli    name=hooli
    Keys Should Be    hooli with the new key    name=hooli    active=1    revoked=1

A Revoked Or Unknown Key Opens Nothing
    [Documentation]    PIPE-C2: a revoked key and one that nobody was given are 401 everywhere, while the customer's
    ...    other key still works.
    [Tags]    PIPE-C2
    [Setup]    Customer Is Onboarded    massive    STARTER
    ${key}    A Second Key Is Added    massive    new_session=massive again
    Key Should Open    massive again    name=massive
    Key Is Revoked    massive    ${key}
    Key Should Open Nothing    massive again    name=massive
    A Stranger Has Made Up A Key
    Key Should Open Nothing    stranger    name=massive
    Keys Should Be    massive    name=massive    active=1    revoked=1

A Key Opens Nothing After Its Time
    [Documentation]    PIPE-C2: a key for one day opens everything until its last minute, and nothing afterwards.
    [Tags]    PIPE-C2
    [Setup]    Customer Is Onboarded    dynamic    STARTER
    A Second Key Is Added    dynamic    new_session=dynamic for a day    days=1
    Move The Clock    by=23 hours 59 minutes
    Key Should Open    dynamic for a day    name=dynamic
    Move The Clock    by=1 minute
    Key Should Open Nothing    dynamic for a day    name=dynamic
    Key Should Open    dynamic    name=dynamic

Stored Credentials Cannot Be Read
    [Documentation]    PIPE-C3: nothing in the row can be read, two equal credentials are stored differently, and no
    ...    answer returns one: who steals the database has stolen no cloud account.
    [Tags]    PIPE-C3
    [Setup]    Customer Is Onboarded    piper    PROFESSIONAL
    ${answers}    The Same Credential Is Added Twice    piper
    Equal Credentials Should Be Stored Differently    piper
    Nothing Stored Should Be Readable    piper
    No Answer Should Bring A Credential    piper    ${answers}

Every Provider And Domain Runs
    [Documentation]    PIPE-C4: GCP, AWS, Azure and OpenAI, each with cost, security, compliance and observability,
    ...    are configured and run.
    [Tags]    PIPE-C4
    [Setup]    Customer Is Onboarded    wonka    ENTERPRISE
    GROUP    When sixteen pipelines are due
        A Pipeline Is Configured For Every Provider And Domain    wonka
        Move The Clock    by=1 day
        The Scheduler Is Triggered
        Everything Queued Is Processed
    END
    GROUP    Then each has run
        Runs Should Be In State    wonka    COMPLETED    16
        Every Provider And Domain Should Have Run    wonka
    END
    [Teardown]    Customer Is Deleted    wonka

A Deletion Takes Runs In Flight Along
    [Documentation]    PIPE-C5: a customer is deleted while runs wait, hang and are reported from outside: every table
    ...    is rid of them, a late report brings nothing back, and another customer keeps everything.
    [Tags]    PIPE-C5
    GROUP    Given a customer, and another with runs in flight
        A Customer With Everything    tyrell
        ${before}    What Is Stored Of    tyrell
        ${outside}    Runs Of Every Kind Are In Flight    cyberdyne
    END
    GROUP    When the one with runs in flight is deleted
        Customer Is Deleted    cyberdyne
        Customer Should Be Gone    cyberdyne
    END
    GROUP    Then nothing comes back, and the other is as before
        The Outside Worker Should Find Nothing To Report For    ${outside}
        Customer Should Be Gone    cyberdyne
        What Is Stored Should Still Be    tyrell    ${before}
    END

A Wrong Schedule Is Told And Not Stored
    [Documentation]    PIPE-C6: a cron expression that is none, that is never due or much too long is 422 with the
    ...    field and the reason; a schedule that is silently misread runs at the wrong time for months.
    [Tags]    PIPE-C6
    [Setup]    Customer Is Onboarded    stark    STARTER
    ${long}    Format String    {:*<10000}    *
    Wrong Pipeline Should Be Refused    stark    field=schedule    reason=expected 0 to 59    schedule=61 * * * *
    Wrong Pipeline Should Be Refused    stark    field=schedule    reason=expected five    schedule=0 2 * *
    Wrong Pipeline Should Be Refused    stark    field=schedule    reason=is never due    schedule=0 0 30 2 *
    Wrong Pipeline Should Be Refused    stark    field=schedule    reason=at most 100 characters    schedule=${long}

A Wrong Field Is Told And Not Stored
    [Documentation]    PIPE-C6: an unknown zone, template, provider or field is 422 with field and reason. No zone is
    ...    taken for UTC, as the document's source did.
    [Tags]    PIPE-C6
    [Setup]    Customer Is Onboarded    oscorp    STARTER
    GROUP    Pipelines
        Wrong Pipeline Should Be Refused    oscorp    field=timezone    reason=IANA name    timezone=Mars/Olympus_Mons
        Wrong Pipeline Should Be Refused
        ...    oscorp
        ...    field=template_name
        ...    reason='cost_billing'
        ...    template_name=mining
        Wrong Pipeline Should Be Refused    oscorp    field=provider    reason='GCP', 'AWS'    provider=HOME
        Wrong Pipeline Should Be Refused
        ...    oscorp
        ...    field=priority
        ...    reason=less than or equal to 10
        ...    priority=${11}
        Wrong Pipeline Should Be Refused    oscorp    field=retries    reason=no such field    retries=${3}
    END
    GROUP    Customers
        Customer Should Be Refused    field=admin_email    reason=an e-mail address    admin_email=nobody
        Customer Should Be Refused    field=subscription_plan    reason='STARTER'    subscription_plan=FREE
        Customer Should Be Refused    field=tenant_id    reason=3 to 50 letters    tenant_id=a; b
    END

A Malformed Body Is Told And Not Stored
    [Documentation]    PIPE-C6: what is no JSON, no object, or far too large is a clear 4xx; SQL in a name
    ...    is only a name.
    [Tags]    PIPE-C6
    [Setup]    Customer Is Onboarded    tables    STARTER
    GROUP    Bodies
        ${huge}    Format String    {:x<1100000}    x
        Body Should Be Refused    tables    {"provider": "GCP",    status=400    reason=not JSON
        Body Should Be Refused    tables    ["GCP", "COST"]    status=422    reason=dictionary
        Body Should Be Refused    tables    "${huge}"    status=413    reason=at most
    END
    GROUP    Names
        Company Is Renamed    tables    Robert'); DROP TABLE customers; --
        Company Should Be Called    tables    Robert'); DROP TABLE customers; --
    END
