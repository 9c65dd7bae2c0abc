"""The SDKs' automatic retries while the sidecar is killed and started again: every report is taken, and billed once."""

import contextlib
import json
import threading

import clients
import pytest
from clients import usage
from wire import LosingProxy, hang_up_once

KILLS = 3


@pytest.mark.parametrize("name", clients.NAMES)
def test_an_answer_that_a_kill_swallows_is_given_to_the_retry(name, pod, tmp_path):
    def kill_and_start():
        pod.kill()
        pod.start().ready()

    pod.start().ready()
    with contextlib.closing(LosingProxy(pod.port, kill_and_start)) as proxy:
        with contextlib.closing(clients.start(name, tmp_path, pod.app_environment(proxy.url))) as client:
            outcome = client.call(**usage())
    head, body = proxy.lost.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), "the report was durable when the sidecar died"
    assert outcome["id"] == json.loads(body)["MeteringRecordId"]
    assert outcome.get("retries", 1) == 1
    assert pod.billed() == {"requests": "5"}


@pytest.mark.parametrize(("name", "calls"), [("boto3", 200), ("javascript", 200), ("cli", 4)])
def test_calls_through_kills_and_restarts_count_once_each(name, calls, pod, tmp_path):
    pod.start().ready()
    taken, over = [], threading.Event()
    with contextlib.closing(clients.start(name, tmp_path, pod.app_environment())) as client:

        def meter():
            # The first calls come before the first kill, and the calls go on until the last restart.
            while len(taken) < calls or not over.is_set():
                taken.append(client.call(**usage()))

        app = threading.Thread(target=meter)
        app.start()
        for _ in range(KILLS):
            pod.kill()
            hang_up_once(pod.port)
            pod.start().ready()
        over.set()
        app.join()
    assert [outcome for outcome in taken if "id" not in outcome] == []
    assert len({outcome["id"] for outcome in taken}) == len(taken)
    assert sum(outcome.get("retries", 1) for outcome in taken) >= KILLS
    assert pod.billed() == {"requests": str(5 * len(taken))}
