import os
import signal
import threading

import pytest
from small_runs import body, config_for

from lora_sd import events, run, signals
from lora_sd.training.train import train


@pytest.fixture(autouse=True)
def usual():
    """Ctrl-C as in a terminal: where the tests themselves run in the background, it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


posix = pytest.mark.skipif(os.name != "posix", reason="these signals are POSIX's")


def test_a_signal_is_a_wish_to_stop_while_heard_and_as_before_afterwards():
    before = signal.getsignal(signal.SIGINT)
    with signals.heard(then_raise=False):
        assert not signals.asked_to_stop()
        signal.raise_signal(signal.SIGINT)
        assert signals.asked_to_stop()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_one_ends_at_once():
    with pytest.raises(KeyboardInterrupt), signals.heard(then_raise=False):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_afterwards_it_is_raised_where_that_is_asked_for():
    with pytest.raises(KeyboardInterrupt), signals.heard(then_raise=True):
        signal.raise_signal(signal.SIGINT)


def test_what_is_ignored_stays_ignored():
    """As the hang-up is by nohup, and Ctrl-C in a background job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals.heard(then_raise=True):
        signal.raise_signal(signal.SIGINT)
        assert not signals.asked_to_stop()


def test_inside_another_and_on_other_threads_it_does_nothing():
    with signals.heard(then_raise=False):
        signal.raise_signal(signal.SIGINT)
        with signals.heard(then_raise=True):
            assert signals.asked_to_stop()
    failures = []

    def elsewhere():
        try:
            with signals.heard(then_raise=True):
                pass
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert failures == []


@posix
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP] if os.name == "posix" else []
)
def test_a_signal_in_a_script_s_training_saves_and_then_has_its_effect(tiny_folder, pictures, number):
    config = config_for(tiny_folder("sd15"), pictures)
    whole = train(config)

    def send(event):
        if isinstance(event, events.Step) and event.step == 2:
            os.kill(os.getpid(), number)

    class Raised(Exception):
        pass

    def handler(*_):
        raise Raised

    before = signal.signal(number, handler)
    try:
        with pytest.raises(Raised):
            train(config, send)
    finally:
        signal.signal(number, before)
    folder = run.list_runs()[0].folder
    assert run.read_state(folder).status == "stopped"
    assert body(train(config, folder=folder)) == body(whole)
