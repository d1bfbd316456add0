*** Settings ***
Documentation     Workers die, PostgreSQL goes away, the network fails and statements take too long, each in the
...               middle of runs. If this breaks, customers' pipelines are lost, run twice or run over their quota.

Resource          ../../resources/pipeline_chaos.resource

Suite Setup       A Pipeline Service With Three Workers
Suite Teardown    The Pipeline Service Is Left
Test Timeout      3 minutes

Test Tags         pipelines    chaos    needs:pipelines    needs:database    needs:test-clock    needs:faults

Name              Chaos


*** Test Cases ***
A Worker Is Killed
    [Documentation]    PIPE-F7: kill -9 in the middle of runs: others take them up, none is lost or executed again
    ...    after it reported success, and quotas are exact.
    [Tags]    PIPE-F7
    [Setup]    Six Customers Have Much To Run    killed
    GROUP    When a worker dies in the middle of runs
        The Workers Are In The Middle Of It    killed
        Worker Is Killed In The Middle Of Runs    third
    END
    GROUP    Then its runs are executed by others
        Runs Of The Dead Worker Should Be Given To Others    third
        Nothing Should Be Lost Or Executed Twice    killed
    END

PostgreSQL Is Restarted
    [Documentation]    PIPE-F8: PostgreSQL is restarted, and then killed and started again, under load: nothing that was
    ...    admitted or reported is lost.
    [Tags]    PIPE-F8
    [Setup]    Six Customers Have Much To Run    restarted
    GROUP    When the database goes away twice
        The Workers Are In The Middle Of It    restarted
        PostgreSQL Is Restarted In The Middle Of Runs    restarted    how=fast
        The Work Should Go On    restarted
        PostgreSQL Is Restarted In The Middle Of Runs    restarted    how=kill
    END
    Nothing Should Be Lost Or Executed Twice    restarted

Connections Are Cut And Refused
    [Documentation]    PIPE-F9: connections to the database are reset, and then refused until the API has said 503;
    ...    everybody comes back without help.
    [Tags]    PIPE-F9
    [Setup]    Six Customers Have Much To Run    cut
    GROUP    When connections end in the middle of runs
        The Workers Are In The Middle Of It    cut
        Every Connection Is Cut In The Middle Of Runs    cut
        The Database Cannot Be Reached In The Middle Of Runs    cut    CONNECTIONS_REFUSED
    END
    Nothing Should Be Lost Or Executed Twice    cut

The Network Is Slow And Silent
    [Documentation]    PIPE-F9: every answer of the database is late, and then none comes until the API has said 503:
    ...    nobody waits forever.
    [Tags]    PIPE-F9
    [Setup]    Six Customers Have Much To Run    silent
    GROUP    When the network delivers late, and then nothing
        The Workers Are In The Middle Of It    silent
        The Network To The Database Is Slow
        The Work Should Go On    silent
        The Database Cannot Be Reached In The Middle Of Runs    silent    SILENCE
    END
    Nothing Should Be Lost Or Executed Twice    silent

Statements Take Too Long
    [Documentation]    PIPE-F10: a locked table lets statements run into their timeout; what they were to store is
    ...    stored later.
    [Tags]    PIPE-F10
    [Setup]    Six Customers Have Much To Run    locked
    GROUP    When somebody locks the table of runs
        The Workers Are In The Middle Of It    locked
        The Table Of Runs Is Locked Until Statements Are Cancelled    locked
    END
    Nothing Should Be Lost Or Executed Twice    locked
