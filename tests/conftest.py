"""How many examples property tests draw: HYPOTHESIS_PROFILE=long or thorough. And threads."""

import os
from pathlib import Path

import torch
from hypothesis import HealthCheck, settings

# Derandomized: a test is red for everyone or for nobody. Thorough runs look for what is new.
settings.register_profile("quick", max_examples=25, deadline=None, derandomize=True)
settings.register_profile(
    "long",
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough",
    max_examples=2000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# Simulated events are kept beside pytest's own cache, not in the user's.
os.environ["ICEDIAG_CACHE"] = str(Path(__file__).parents[1] / ".pytest_cache" / "events")

# Tensors here are tiny: threads would only wait for each other, on a busy machine for seconds.
torch.set_num_threads(1)
