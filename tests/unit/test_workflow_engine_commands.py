"""``custom_command`` runs a program without a shell, in the deployment's directory, and leaves nothing running."""

import sys
import threading

import psutil
import pytest
from testyard.core.redact import secrets_in_use
from testyard.workflow.registry import StepRegistry
from workflow_engine_support import World, alarm

# Tells its process id, and waits.
FOREVER = "import os, threading\nopen('pid', 'w').write(str(os.getpid()))\nthreading.Event().wait()"
SECRET = "hunter2-hunter2-hunter2"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def command(*arguments, **more):
    return {"step": "custom_command", "custom_command": list(arguments), **more}


def python(code, *arguments, **more):
    return command(sys.executable, "-c", code, *arguments, **more)


def only(result):
    return result.workflow_steps[0]


def test_a_program_is_run_in_the_deployment_s_directory_with_its_variables_filled_in(world):
    code = "import os, sys; print(os.getcwd(), *sys.argv[1:])"
    step = only(world.run(python(code, "--in=$deployment_dir", "${provider}", "$$HOME")))
    here = str(world.directory)
    assert step.result["output"] == [f"{here} --in={here} libvirt $HOME"]
    assert step.result["exit_status"] == 0
    assert step.result["command"][3:] == [f"--in={here}", "libvirt", "$HOME"]


def test_no_shell_sees_the_arguments(world):
    hostile = "; touch oops && `touch oops` | cat > oops"
    assert only(world.run(python("import sys; print(sys.argv[1])", hostile))).result["output"] == [hostile]
    assert not (world.directory / "oops").exists()


def test_a_script_of_the_deployment_s_directory_is_found(world):
    script = world.directory / "verify.sh"
    script.write_text("#!/bin/sh\necho checked $1\n")
    script.chmod(0o700)
    assert only(world.run(command("./verify.sh", "--check-integrity"))).result["output"] == [
        "checked --check-integrity"
    ]


def test_a_program_that_fails_is_told_with_its_exit_status_and_last_lines(world):
    code = (
        "import sys\nfor n in range(100): print('line', n)\nprint('no space left', file=sys.stderr)\nsys.exit(3)"
    )
    error = only(world.run(python(code))).error
    assert "ended with exit status 3:\n" in error
    assert error.endswith("line 99\nno space left")
    assert "line 10\n" not in error


def test_a_program_that_says_nothing_is_told_so(world):
    assert only(world.run(python("raise SystemExit(1)"))).error.endswith("exit status 1 and printed nothing.")


@pytest.mark.parametrize(
    ("program", "reason"), [("./missing.sh", "No such file or directory"), ("./plain.txt", "Permission denied")]
)
def test_a_program_that_cannot_be_run_is_told(world, program, reason):
    (world.directory / "plain.txt").write_text("")
    assert only(world.run(command(program))).error == f"{program} cannot be run in {world.directory}: {reason}."


def test_without_a_deployment_directory_nothing_is_run(world):
    executor = world.executor()
    executor.context["deploy_dir"] = world.directory / "nowhere"
    error = executor.run(world.parse(command("true")).suite()).workflow_steps[0].error
    assert "there is no deployment directory" in error


def test_a_program_is_tried_again_as_documented(world):
    code = "import pathlib; p = pathlib.Path('tries'); p.write_text(p.read_text() + 'x' if p.exists() else 'x'); "
    code += "raise SystemExit(p.read_text() != 'xx')"
    step = only(world.run(python(code, retry={"max_attempts": 3})))
    assert (step.attempts, step.error, str(step.status)) == (2, None, "completed")


def test_the_documented_attempts_time_and_delay_are_the_defaults(world):
    retry = StepRegistry().find("custom_command").retry
    assert (retry.max_attempts, retry.delay_seconds) == (1, 10)
    assert world.parse(command("true")).suite().workflow[0].timeout_seconds == 300


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(world):
    code = (
        "import os, subprocess, sys, threading\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import threading; threading.Event().wait()'])\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "threading.Event().wait()"
    )
    step = only(world.run(python(code, timeout_seconds=1.5)))
    assert "did not end within 1.5 s:\n" in step.error
    pids = [int(word) for word in step.error.splitlines()[-1].split()]
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def alive(pid):
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        psutil.wait_procs([psutil.Process(pid)], timeout=5)
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_program_that_outlives_its_parent_does_not_hold_up_the_step(world):
    child = "[sys.executable, '-c', 'import threading; threading.Event().wait(30)']"
    code = f"import subprocess, sys\nsubprocess.Popen({child})"
    step = only(world.run(python(f"{code}\nprint('left')")))
    assert step.result["output"] == ["left"]
    assert step.duration < 20


def test_an_interrupt_ends_the_program(world):
    with alarm(KeyboardInterrupt) as interrupt_after:
        interrupt_after(0.8)
        with pytest.raises(KeyboardInterrupt):
            world.run(python(FOREVER))
    assert not alive(int((world.directory / "pid").read_text()))


def test_programs_beside_each_other_end_when_the_run_is_aborted(world):
    started = threading.Event()

    def abort(context, step):
        assert started.wait(20)
        raise SystemExit(3)

    def watch(context, step):
        while not (world.directory / "pid").exists():
            context.cancelled.wait(0.02)
        started.set()

    world.steps.register("abort", "Abort", abort)
    world.steps.register("watch", "Wait for the program", watch)
    forever = python(
        "import os, threading\nopen('pid', 'w').write(str(os.getpid()))\nthreading.Event().wait(20)",
        timeout_seconds=4,
    )
    with pytest.raises(SystemExit):
        world.run({"step": "parallel", "steps": [{"step": "watch"}, {"step": "abort"}, forever]})
    assert (
        "was ended because the run is being aborted" in world.written()["workflow_steps"][0]["steps"][2]["error"]
    )
    assert not alive(int((world.directory / "pid").read_text()))


def test_a_secret_that_a_program_prints_is_masked(world):
    secrets_in_use.add(SECRET)
    passed, failed = (only(world.run(python(f"print('{SECRET}'); raise SystemExit({code})"))) for code in (0, 1))
    assert passed.result["output"] == ["***"]
    assert SECRET not in str(passed.result)
    assert SECRET not in failed.error
    assert failed.error.endswith("***")
