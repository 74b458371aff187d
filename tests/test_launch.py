"""launch.py and lora_sd.torch_build: what is installed, for which hardware, and what is said when it can't be."""

import ast
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from io import BytesIO
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import launch  # noqa: E402
from lora_sd import torch_build  # noqa: E402
from lora_sd.torch_build import CPU, CUDA, PIPS_CHOICE, ROCM, Hardware  # noqa: E402

CU130, CU128, CU126 = CUDA


# What is installed


def test_pyproject_uses_the_one_form_that_launch_reads():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    for requirement in launch.requirements(text, "test"):
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement)
    assert launch.requirements(text)[0].startswith("torch>=")  # installed first, from an index of its own


@pytest.mark.parametrize(
    "installed, requirement, enough",
    [
        ("2.13.0+cpu", "torch>=2.6", True),
        ("2.5.1", "torch>=2.6", False),
        ("2.6", "torch>=2.6", True),
        ("10", "x>=9.1", True),
    ],
)
def test_versions_are_compared_as_numbers(monkeypatch, installed, requirement, enough):
    monkeypatch.setattr(launch.importlib.metadata, "version", lambda name: installed)
    assert launch.satisfied(requirement) is enough


def test_what_is_not_installed_is_not_satisfied():
    assert not launch.satisfied("no-such-package>=1")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with a pyproject.toml and no environment, where the running Python lacks a package."""
    project = '[project]\ndependencies = ["torch>=2.6", "no-such-package>=1"]\noptional-dependencies.test = ["pytest>=8"]\n'
    (tmp_path / "pyproject.toml").write_text(project)
    monkeypatch.setattr(launch, "HERE", tmp_path)
    for name, path in (("VENV", ".venv"), ("STAMP", ".venv/lora_sd.json"), ("LOG", ".venv/install.log")):
        monkeypatch.setattr(launch, name, tmp_path / path)
    monkeypatch.setattr(torch_build, "choose", lambda say: CU128)
    return tmp_path


@pytest.fixture
def calls(clone, monkeypatch):
    """The commands that an installation runs; `venv` makes its Python."""
    made = []

    def check_call(command):
        made.append(command[1:])
        if "venv" in command:
            launch.venv_python().parent.mkdir(parents=True, exist_ok=True)
            launch.venv_python().touch()

    monkeypatch.setattr(launch, "check_call", check_call)
    return made


def test_a_python_that_has_everything_is_used_itself(clone, calls):
    (clone / "pyproject.toml").write_text('[project]\ndependencies = ["torch>=2.6"]\n')
    assert launch.environment() == sys.executable
    assert not calls


def test_the_first_start_installs_torch_from_its_index_and_then_the_rest(clone, calls, capsys):
    assert launch.environment() == str(launch.venv_python())
    venv, torch, rest = calls
    assert venv[:2] == ["-m", "venv"]
    assert torch[-3:] == ["torch>=2.6", "--index-url", "https://download.pytorch.org/whl/cu128"]
    assert rest[-2:] == ["torch>=2.6", "no-such-package>=1"]
    said = capsys.readouterr().out
    assert "1 of 3" in said and "2 of 3" in said and "3 of 3" in said and "minutes" in said


def test_the_second_start_installs_nothing(clone, calls):
    launch.environment()
    calls.clear()
    assert launch.environment() == str(launch.venv_python())
    assert not calls


def test_the_tests_add_their_packages_once_and_the_page_keeps_them(clone, calls):
    launch.environment()
    calls.clear()
    launch.environment("test")
    assert "pytest>=8" in calls[-1] and not any("venv" in call for call in calls)
    calls.clear()
    launch.environment("test")
    launch.environment()
    assert not calls


def test_a_changed_pyproject_updates_the_environment_with_the_same_torch(clone, calls, monkeypatch):
    launch.environment()
    calls.clear()
    monkeypatch.setattr(torch_build, "choose", lambda say: pytest.fail("chosen again"))
    (clone / "pyproject.toml").write_text('[project]\ndependencies = ["torch>=2.7", "no-such-package>=2"]\n')
    launch.environment()
    torch, rest = calls
    assert torch[-1].endswith("/cu128") and rest[-1] == "no-such-package>=2"


def test_an_environment_whose_python_is_gone_is_made_anew(clone, calls):
    launch.environment()
    launch.venv_python().unlink()
    calls.clear()
    launch.environment()
    assert calls[0][:2] == ["-m", "venv"]


def test_repair_makes_it_anew(clone, calls):
    launch.environment()
    calls.clear()
    assert launch.main(["repair"]) == 0
    assert calls[0][:2] == ["-m", "venv"]


# What is said when it can't be


def stopped(function, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        function(*arguments)
    assert "\n" not in stop.value.code
    return stop.value.code


@pytest.mark.parametrize("version", [(3, 8), (3, 10), (3, 15)])
def test_a_wrong_python_is_told_which_one_is_right(version):
    assert "3.11 to 3.14" in stopped(launch.check_python, version, 2**63)


def test_a_32_bit_python_is_told():
    assert "64-bit" in stopped(launch.check_python, (3, 12), 2**31)


def test_an_old_python_can_read_launch():
    """Python 3.8 compiles the file and imports no more than it has."""
    tree = ast.parse((ROOT / "launch.py").read_text("utf-8"), feature_version=(3, 8))
    imported = {
        alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names
    }
    assert imported <= sys.stdlib_module_names - {"tomllib"}


@pytest.mark.parametrize(
    "output, words",
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        (
            "The virtual environment was not created because ensurepip is not available.",
            "apt install python3-venv",
        ),
        (
            "WARNING: Retrying ... NewConnectionError ...\nERROR: No matching distribution found for torch",
            "internet",
        ),
        ("ERROR: No matching distribution found for torch>=2.6", "no torch for this Python"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))", "proxy"),
        ("OSError: [WinError 206] The filename or extension is too long", r"C:\lora_sd"),
        ("PermissionError: [WinError 5] Access is denied", "close other lora_sd windows"),
        ("something new\nthe last word", "the last word"),
    ],
)
def test_what_pip_says_becomes_one_sentence_with_a_remedy(output, words):
    assert words in launch.explain(output)


def test_a_failing_step_stops_with_its_sentence_and_keeps_the_log(clone):
    launch.VENV.mkdir()
    program = "import sys; print('ERROR: No space left on device'); sys.exit(1)"
    assert "disk is full" in stopped(launch.check_call, [sys.executable, "-c", program])
    assert "No space left" in launch.LOG.read_text()


def test_a_small_disk_is_told_before_the_download(clone, calls, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1.5e9))
    assert "1.5 GB are free" in stopped(launch.environment)
    assert not calls


def test_a_deep_folder_on_windows_is_told(clone, monkeypatch):
    monkeypatch.setattr(launch, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(launch, "long_paths", lambda: False)
    monkeypatch.setattr(launch, "HERE", clone / ("deep" * 20))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e12))
    assert r"C:\lora_sd" in stopped(launch.check_folder, 2)


# Which PyTorch


@pytest.mark.parametrize(
    "hardware, builds",
    [
        (Hardware("Linux", "x86_64", 580, 8.9), [CU130, CU128, CU126]),
        (Hardware("Windows", "AMD64", 580, 10.3), [CU130, CU128]),
        (Hardware("Windows", "AMD64", 572, 12.0), [CU128]),  # a card of 2025
        (Hardware("Linux", "x86_64", 535, 8.6), [CU126]),
        (Hardware("Linux", "x86_64", 580, 6.1), [CU126]),  # a card of 2016
        (Hardware("Linux", "x86_64", 470, 8.6), [CPU]),
        (Hardware("Linux", "x86_64", 470, 0), [CPU]),
        (Hardware("Linux", "x86_64", 580, 3.5), [CPU]),
        (Hardware("Linux", "x86_64"), [CPU]),
        (Hardware("Linux", "x86_64", vendors=frozenset({"nvidia"})), [CPU]),
        (Hardware("Linux", "x86_64", vendors=frozenset({"amd"})), list(ROCM)),
        (Hardware("Windows", "AMD64", vendors=frozenset({"amd"})), [CPU]),
        (Hardware("Windows", "AMD64", vendors=frozenset({"intel"})), [CPU]),
        (Hardware("Darwin", "arm64"), []),  # what pip finds
    ],
)
def test_the_build_follows_the_hardware(hardware, builds):
    assert list(torch_build.fitting(hardware)[0]) == builds


@pytest.mark.parametrize(
    "hardware, words",
    [
        (Hardware("Linux", "x86_64", 470, 8.6), "driver 470 is too old"),
        (Hardware("Linux", "x86_64", 580, 3.5), "compute capability is 3.5"),
        (Hardware("Windows", "AMD64", vendors=frozenset({"nvidia"})), "driver is not"),
        (Hardware("Windows", "AMD64", vendors=frozenset({"amd"})), "under Linux"),
        (Hardware("Darwin", "arm64"), "untested"),
    ],
)
def test_what_the_owner_should_know_is_said(hardware, words):
    assert words in torch_build.fitting(hardware)[1]


def test_an_intel_mac_is_told():
    with pytest.raises(ValueError, match="Intel"):
        torch_build.fitting(Hardware("Darwin", "x86_64"))


def page(*names: str) -> str:
    return "".join(f'<a href="/whl/x/{name}">{name}</a><br>' for name in names)


def test_an_index_page_is_searched_for_this_python_and_processor(monkeypatch):
    monkeypatch.setattr(torch_build.sys, "version_info", (3, 12, 1))
    monkeypatch.setattr(torch_build.sysconfig, "get_platform", lambda: "linux-x86_64")
    assert torch_build.has_wheel(page("torch-2.9.0%2Bcu130-cp312-cp312-manylinux_2_28_x86_64.whl"))
    for other in (
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp312-cp312-win_amd64",
        "cp312-cp312t-manylinux_2_28_x86_64",
    ):
        assert not torch_build.has_wheel(page(f"torch-2.9.0%2Bcu130-{other}.whl"))


@pytest.fixture
def index(monkeypatch):
    """PyTorch's index with only cu126 left; `None` turns the network off."""

    @contextmanager
    def urlopen(address, timeout):
        assert timeout == 5
        if index.network is None:
            raise urllib.error.URLError("no network")
        if "cu126" not in address:
            raise urllib.error.HTTPError(address, 403, "Forbidden", {}, None)
        yield BytesIO(b"cu126")

    index = SimpleNamespace(network="on", said=[])
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(torch_build, "has_wheel", lambda page: page == "cu126")
    return index


def test_a_folder_that_the_index_no_longer_has_is_passed_over(index):
    assert torch_build.first_offered(CUDA, index.said.append) == CU126


def test_without_the_index_pip_chooses_and_that_is_said(index):
    index.network = None
    assert torch_build.first_offered(CUDA, index.said.append) == PIPS_CHOICE
    assert len(index.said) == 1


def test_every_build_is_found_by_its_stamp():
    assert {build.tag for build in (*CUDA, *ROCM, CPU, PIPS_CHOICE)} == set(torch_build.BUILDS)
    assert CU130.newest == inf  # cards that are not yet made


def test_this_machine_gets_a_build():
    assert torch_build.fitting(torch_build.find_hardware())[0]


# Running


def test_exit_codes_pass_through():
    assert launch.run([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_what_runs_finds_our_code_and_its_home(tmp_path, monkeypatch):
    monkeypatch.delenv("LORA_SD_HOME")
    assert launch.child_environment()["LORA_SD_HOME"] == str(ROOT / "workspace")
    monkeypatch.setenv("LORA_SD_HOME", str(tmp_path))
    assert launch.child_environment()["LORA_SD_HOME"] == str(tmp_path)
    code = "import launch, lora_sd"
    assert (
        subprocess.run(
            [sys.executable, "-P", "-c", code], cwd=tmp_path, env=launch.child_environment()
        ).returncode
        == 0
    )


def launched(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "launch.py", *arguments], capture_output=True, text=True, cwd=cwd
    )


def test_a_command_runs_from_any_folder(tmp_path):
    done = launched("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "This machine can train." in done.stdout


def test_help_makes_no_environment(clone, calls, capsys):
    assert launch.main(["--help"]) == 0
    assert "python launch.py test" in capsys.readouterr().out
    assert not calls


@pytest.mark.parametrize(
    "arguments, command",
    [
        (["--port", "0"], ["-P", "-m", "app.main", "--port", "0"]),
        (["train", "a.toml"], ["-P", "-m", "lora_sd", "train", "a.toml"]),
        (["test", "-k", "x"], ["-m", "pytest", "-k", "x"]),
    ],
)
def test_what_is_asked_for_runs_in_the_environment(monkeypatch, arguments, command):
    monkeypatch.setattr(launch, "environment", lambda extra="": f"python with [{extra}]")
    monkeypatch.setattr(launch, "run", lambda command, cwd=None: command)
    python, *rest = launch.main(arguments)
    assert rest == command
    assert python == f"python with [{'test' if 'test' in arguments else ''}]"


def test_the_page_answers_and_ends_when_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, ROOT / "launch.py", "--no-browser", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as page:
        try:
            assert "Make" in wait_for(f"http://127.0.0.1:{port}", page)
        finally:
            page.terminate()
    assert page.returncode == 128 + signal.SIGTERM


def wait_for(url: str, page: subprocess.Popen) -> str:
    """What `url` answers, within two minutes."""
    for _ in range(600):
        assert page.poll() is None, page.stdout.read()
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return answer.read().decode()
        except urllib.error.URLError:
            time.sleep(0.2)
    raise TimeoutError(url)


def test_the_stamp_tells_what_the_environment_is(clone, calls):
    launch.environment("test")
    assert json.loads(launch.STAMP.read_text()) == {
        "pyproject": launch.fingerprint(),
        "torch": "cu128",
        "extras": ["test"],
    }
