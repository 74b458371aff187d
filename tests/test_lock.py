import subprocess
import sys

import pytest

from lora_sd import lock

HOLD = """
import sys, time
from pathlib import Path
from lora_sd import lock
with lock.hold(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has the lock of `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_two_processes_never_have_one_lock(tmp_path, other, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    assert lock.held(tmp_path)
    with pytest.raises(ValueError, match="busy"), lock.hold(tmp_path, "It is busy."):
        pass


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path, other):
    other.kill()
    other.wait()
    assert lock.held(tmp_path) is False
    with lock.hold(tmp_path, "busy"):
        assert lock.held(tmp_path)


def test_who_has_it_may_take_it_again_and_keeps_it_until_the_end(tmp_path):
    assert lock.held(tmp_path) is None
    with lock.hold(tmp_path, "busy"):
        with lock.hold(tmp_path, "busy"):
            pass
        assert lock.held(tmp_path)
    assert not lock.held(tmp_path)
