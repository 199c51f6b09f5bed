"""Ctrl-C: exit code 130, one line, and no file that was written in part."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINE = """
import os
import torch
from icediag import Pipeline

class Slow(torch.nn.Linear):
    def forward(self, x):
        if not os.path.exists("reached"):
            open("reached", "w").close()
            os.write(int(os.environ["ICEDIAG_TEST_PIPE"]), b"x")
        while True:
            pass

def pipeline():
    return Pipeline(
        name="slow",
        dataset=[torch.ones(2)] * 4,
        collate=torch.stack,
        model=Slow(2, 1),
        loss=lambda predictions, batch: predictions.sum(),
    )
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "slow_pipeline.py").write_text(PIPELINE)
    reads, writes = os.pipe()
    root = str(Path(__file__).parent.parent)
    command = [sys.executable, "-m", "icediag.cli.main", "check", "--out", "out"]
    running = subprocess.Popen(
        [*command, "--pipeline", "slow_pipeline:pipeline"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root, "ICEDIAG_TEST_PIPE": str(writes)},
        pass_fds=[writes],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background inherits that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(writes)
    assert os.read(reads, 1) == b"x", "the model was not reached"  # waits for it, or for the end
    os.close(reads)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate()
    assert running.returncode == 130
    assert out == "" and err.splitlines()[-1] == "icediag: stopped by Ctrl-C"
    assert "Traceback" not in err
    assert list((tmp_path / "out").iterdir()) == []
