"""The demo: its bill is equal, it fails where one is not, and nothing of it runs on."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from pod import BIN

RUN_SECONDS_MAX = 90


class Demo:
    """The demo in a session of its own, as in a terminal."""

    def __init__(self, folder):
        self.folder = folder
        environment = {"PATH": os.environ["PATH"], "TOLLGATE_BIN_DIR": str(BIN), "TMPDIR": str(folder)}
        self.process = subprocess.Popen(
            ["demo/run"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def tells(self, text):
        """Reads on until a line has `text`."""
        assert any(text in line for line in self.process.stdout), self.process.stderr.read()

    def ends(self):
        output, errors = self.process.communicate(timeout=RUN_SECONDS_MAX)
        return self.process.returncode, output, errors

    def leaves(self):
        """The processes of its session, and its files."""
        running = []
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid:
                running.append(stat.read_text())
        return running + list(self.folder.iterdir())


@pytest.fixture
def demo(tmp_path):
    shown = Demo(tmp_path)
    yield shown
    with shown.process:
        if shown.process.poll() is None:
            os.killpg(shown.process.pid, signal.SIGKILL)


def test_the_bill_is_equal_and_nothing_is_left(demo):
    code, output, errors = demo.ends()
    assert code == 0, errors
    assert errors == ""
    bill = output.split("== The bill")[1]
    assert bill.count(" equal") == 3
    assert "1000 reports" in bill
    assert demo.leaves() == []


@pytest.mark.parametrize("moment", ["== The main program waits", "== kill -9", "== AWS is down"])
def test_an_interrupted_demo_leaves_nothing(demo, moment):
    demo.tells(moment)
    os.killpg(demo.process.pid, signal.SIGINT)
    code, _, _ = demo.ends()
    assert code == 128 + signal.SIGINT
    assert demo.leaves() == []


@pytest.mark.parametrize(("billed", "code"), [("0.250001", 0), ("0.25", 1), ("0.250002", 1)])
def test_a_bill_that_is_off_by_a_millionth_fails(tmp_path, billed, code):
    papers = {
        "reported": {"gb": {"reports": 2, "quantity": "0.250001"}},
        "account": {"totals": [{"dimension": "gb", "quantity": billed}], "records": [{"dimension": "gb"}]},
        "calls": [{"operation": "MeterUsage"}],
    }
    for name, paper in papers.items():
        (tmp_path / name).write_text(json.dumps(paper))
    arguments = [sys.executable, "demo/bill.py", *(tmp_path / name for name in papers)]
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == code
