"""icediag tells why a training run on ragged events is slow or does not learn.

The public interface: describe a pipeline with `Pipeline`, then run the command line on it.
"""

from icediag.pipeline import Domain, Pipeline, Raw

__all__ = ["Domain", "Pipeline", "Raw"]
