"""The SDKs' automatic retries while the sidecar is killed and started again: every report is taken, and billed once."""

import contextlib
import json
import threading

import clients
import pytest
from clients import usage
from customers import BUYER, batch_of, licensed
from wire import LosingProxy, hang_up_once

KILLS = 3


class Own:
    """The pod's own usage: an SDK's retries carry a ClientToken."""

    def prepare(self, simulator):
        """There is nobody to be known."""

    def report(self, client):
        return client.call(**usage())

    def ids(self, answer):
        return answer["MeteringRecordId"]

    def billed(self, pod):
        return pod.billed()


class Customers:
    """Customers' usage: the invocation id alone tells a retry from a second call."""

    def prepare(self, simulator):
        simulator.admin("PUT", "customers", BUYER)

    def report(self, client):
        outcome = client.ask("BatchMeterUsage", **batch_of(licensed(Quantity=2), licensed(Quantity=3)))
        if "answer" in outcome:
            outcome["id"] = self.ids(outcome.pop("answer"))
        return outcome

    def ids(self, answer):
        return " ".join(result["MeteringRecordId"] for result in answer["Results"])

    def billed(self, pod):
        return {dimension: quantity for (_, dimension), quantity in pod.billed_to_customers().items()}


CASES = [(name, Own()) for name in clients.NAMES] + [(name, Customers()) for name in clients.SDKS]
CASE_IDS = [f"{name}-{type(whose).__name__}" for name, whose in CASES]


@pytest.mark.parametrize(("name", "whose"), CASES, ids=CASE_IDS)
def test_an_answer_that_a_kill_swallows_is_given_to_the_retry(name, whose, pod, simulator, tmp_path):
    def kill_and_start():
        pod.kill()
        pod.start().ready()

    whose.prepare(simulator)
    pod.start().ready()
    with contextlib.closing(LosingProxy(pod.port, kill_and_start)) as proxy:
        with contextlib.closing(clients.start(name, tmp_path, pod.app_environment(proxy.url))) as client:
            outcome = whose.report(client)
    head, body = proxy.lost.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), "the report was durable when the sidecar died"
    assert outcome["id"] == whose.ids(json.loads(body))
    assert outcome.get("retries", 1) == 1
    assert whose.billed(pod) == {"requests": "5"}


@pytest.mark.parametrize(("name", "whose"), CASES, ids=CASE_IDS)
def test_calls_through_kills_and_restarts_count_once_each(name, whose, pod, simulator, tmp_path):
    calls = 4 if name == "cli" else 200
    whose.prepare(simulator)
    pod.start().ready()
    taken, over = [], threading.Event()
    with contextlib.closing(clients.start(name, tmp_path, pod.app_environment())) as client:

        def meter():
            # The first calls come before the first kill, and the calls go on until the last restart.
            while len(taken) < calls or not over.is_set():
                taken.append(whose.report(client))

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
    assert whose.billed(pod) == {"requests": str(5 * len(taken))}
