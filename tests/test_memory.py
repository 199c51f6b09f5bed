"""A giant event in an ordinary batch: memory of one training step, as the system counts it."""

import subprocess
import sys

import pytest

STEP = """
import resource
import numpy as np, torch
from icediag.model.assembly import assemble
from icediag.model.event import Event

whole = assemble(n_events=255, validation=0)
rng = np.random.default_rng(0)
n_doms, n_pulses = 2_533, 20_000
sensors = rng.permutation(5160)[:n_doms]
sensors = np.concatenate([sensors, rng.choice(sensors, n_pulses - n_doms)])
features = np.stack([rng.uniform(6e3, 2e4, n_pulses).round(), rng.exponential(1, n_pulses), sensors,
                     rng.integers(0, 2, n_pulses)], axis=1).astype(np.float32)
giant = Event(pulse_features=torch.from_numpy(features), event_id=10**9,
              target=torch.tensor([1.0, 1.0]))
batch = whole.collate([*(whole.dataset[i] for i in range(255)), giant])
assert int(batch.event_dom_counts.max()) == n_doms
assert batch.batch_size == 256
loss = whole.loss(whole.network(batch), batch.targets)
loss.backward()
optimizer = torch.optim.AdamW(whole.network.parameters())
optimizer.step()
assert torch.isfinite(loss)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_a_giant_event_trains_in_3_gib() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    assert 2**28 < int(done.stdout) < 3 * 2**30
