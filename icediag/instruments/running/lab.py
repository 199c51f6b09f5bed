"""The lab: any list of samples through a pipeline, in evaluation, as often as is wanted.

Each run starts from the same random numbers and leaves model, samples and generators as they were.
Where the model can be copied to float64, runs use the copy: what differs there by more than 1e-9 is
no rounding. Where it cannot, the rounding of a run is measured by moving weights and inputs by one
unit in the last place.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.trees.rebuild import cast, rebuilt
from icediag.instruments.trees.walk import leaves, move
from icediag.pipeline import Pipeline

from .modes import seed_all
from .preserve import is_lazy, preserved, unchanged

#: Of float32, differences up to this many units in the last place of the largest value are taken
#: for rounding: sums over thousands of rows in another order, through some layers.
ULPS = 64
#: In float64 that many are 1.4e-14; what is left below this share of the largest value is of sums
#: that cancel, not of one event reading another.
PRECISE = 1e-9
#: Without float64, the measured rounding is multiplied by this.
MARGIN = 32

#: path -> values of every floating-point output.
Outputs = dict[str, Tensor]


def call(pipeline: Pipeline, model: Any, batch: Any) -> Any:
    """Predictions of a batch."""
    return pipeline.forward(model, batch) if pipeline.forward is not None else model(batch)


def weights_of(model: Any) -> list[nn.Parameter]:
    """Parameters of a model, none of anything else."""
    return list(model.parameters()) if isinstance(model, nn.Module) else []


def outputs_of(predictions: Any) -> Outputs:
    """The floating-point tensors among predictions, as they are."""
    return {
        path: tensor
        for path, tensor in leaves(predictions)
        if tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_nested
    }


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference of two tensors of one shape; infinite where only one is not finite."""
    if not one.numel():
        return 0.0
    a, b = _wide(one), _wide(other)
    same = (a == b) | (a.isnan() & b.isnan())
    apart = torch.where(same, 0.0, (a - b).abs())
    return float(torch.where(apart.isnan(), torch.inf, apart).max())


def _wide(tensor: Tensor) -> Tensor:
    """In float64; of complex numbers both parts."""
    values = tensor.detach()
    return (torch.view_as_real(values.resolve_conj()) if values.is_complex() else values).double()


def comparable(one: Tensor, other: Tensor) -> bool:
    """Whether neither holds NaN: what that spreads to, tells nothing of finite values."""
    return not bool(one.isnan().any()) and not bool(other.isnan().any())


def scale_of(tensor: Tensor) -> float:
    """Largest finite magnitude, 0 where there is none."""
    values = _wide(tensor).abs()
    values = values[values.isfinite()]
    return float(values.max()) if values.numel() else 0.0


class Lab:
    """Runs a pipeline on lists of samples.

    Args:
        pipeline: What to run.
        device: Where the model is.
        seed: Of the random generators.
    """

    def __init__(self, pipeline: Pipeline, device: torch.device, seed: int) -> None:
        self.pipeline, self.device, self.seed = pipeline, device, seed
        self.twin: Any = None
        self._noise: Outputs | None = None
        #: (identities of samples, native) -> these samples, kept alive by this, and their outputs.
        self._runs: dict[tuple[tuple[int, ...], bool], tuple[list[Any], Outputs]] = {}
        self._dtype = torch.get_default_dtype()
        self._eps: dict[str, float] = {}

    def find_twin(self, samples: Sequence[Any]) -> bool:
        """Copy the model to float64, and see that the copy gives what the model gives."""
        model = self.pipeline.model
        if not isinstance(model, nn.Module) or self.device.type == "mps":
            return False
        try:
            with preserved(model):
                self.twin = copy.deepcopy(model).double()
            native, precise = self.run(samples, native=True), self.run(samples)
            self._eps = {path: torch.finfo(out.dtype).eps for path, out in native.items()}
            alike = set(native) == set(precise) and all(
                native[path].shape == precise[path].shape
                and difference(native[path], precise[path]) <= 1e-2 * scale_of(native[path])
                for path in native
            )
        except Exception:  # a model that is tied to float32 has no copy in float64
            alike = False
        if not alike:
            self.twin = None
            self._runs.clear()
        return alike

    @contextmanager
    def ready(
        self, samples: Sequence[Any], *, native: bool = False, training: bool = False
    ) -> Iterator[Any]:
        """The model to use, with everything put back at the end.

        Args:
            samples: What the code within may change in place.
            native: Use the user's own model though there is a copy in float64.
            training: Leave flags as they are, instead of setting evaluation.
        """
        precise = self.twin is not None and not native
        model = self.twin if precise else self.pipeline.model
        with ExitStack() as stack:
            if precise:
                stack.callback(torch.set_default_dtype, self._dtype)
                torch.set_default_dtype(torch.float64)
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # said once by the recorder, not at each run
            stack.enter_context(preserved(model))
            stack.enter_context(unchanged(list(samples)))
            if isinstance(model, nn.Module) and not training:
                for module in model.modules():
                    module.training = False
            seed_all(self.seed)
            yield model

    def collate(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """Tensors of a batch, by path, where the model is not wanted.

        Raises:
            Exception: Whatever the user's code raises.
        """
        with preserved(None), unchanged(list(samples)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seed_all(self.seed)
            # In memory of its own: what the samples share with it is put back.
            return {path: tensor.clone() for path, tensor in leaves(self.batch(samples))}

    def batch(self, samples: Sequence[Any], *, native: bool = True) -> Any:
        """Collate; of `native` False with its floating-point tensors in float64."""
        with torch.no_grad():
            within = torch.get_default_dtype()
            torch.set_default_dtype(self._dtype)
            try:
                batch = move(self.pipeline.collate(list(samples)), self.device)
            finally:
                torch.set_default_dtype(within)
        return batch if native or self.twin is None else cast(batch, torch.float64)

    def run(self, samples: Sequence[Any], *, native: bool = False) -> Outputs:
        """Outputs in evaluation, not to be written to: of the same samples they are kept.

        Every run begins with the same weights and random numbers, so a second one gives nothing
        new; whether a model gives the same twice is asked of `ready`.

        Raises:
            Exception: Whatever the user's code raises.
        """
        key = tuple(map(id, samples)), native or self.twin is None
        if key not in self._runs:
            with self.ready(samples, native=native) as model, torch.no_grad():
                predictions = call(self.pipeline, model, self.batch(samples, native=native))
                found = outputs_of(predictions)
                given = {path: out.detach().clone() for path, out in found.items()}
            self._runs[key] = list(samples), given
        return dict(self._runs[key][1])

    def rounding(self, path: str, reference: Tensor, *, native: bool = False) -> float:
        """What rounding explains of a difference in one output.

        Args:
            path: Of the output.
            reference: Its values.
            native: Of a run at the precision of training.
        """
        scale = scale_of(reference)
        eps = torch.finfo(reference.dtype).eps
        if native:
            eps = self._eps.get(path, eps)
        if self.twin is not None and not native:
            return max(PRECISE * scale, ULPS * eps * scale)
        measured = 0.0
        if self.twin is None and self._noise is not None and path in self._noise:
            measured = MARGIN * float(self._noise[path])
        return max(ULPS * eps * scale, measured)

    def measure_noise(self, samples: Sequence[Any]) -> None:
        """Measure what one unit in the last place of weights and inputs does to the outputs."""
        before = self.run(samples, native=True)
        found: Outputs = {path: torch.zeros(()) for path in before}
        for step in (1, 2):
            with self.ready(samples, native=True) as model, torch.no_grad():
                generator = torch.Generator().manual_seed(step)

                def jitter(_: str, leaf: Any, generator: torch.Generator = generator) -> Any:
                    whole = not isinstance(leaf, Tensor) or not leaf.is_floating_point()
                    # A whole number among floats may be a name, or a place.
                    if whole or leaf.layout != torch.strided:
                        return leaf
                    signs = torch.rand(leaf.shape, generator=generator).to(leaf) * 2 - 1
                    moved = leaf * (1 + signs * torch.finfo(leaf.dtype).eps)
                    return torch.where(leaf == leaf.round(), leaf, moved)

                for parameter in weights_of(model):
                    # One without a shape yet gets its values, the same each time, as it runs.
                    if parameter.is_floating_point() and not is_lazy(parameter):
                        parameter.copy_(jitter("", parameter))
                batch = rebuilt(self.batch(samples), jitter)
                after = outputs_of(call(self.pipeline, model, batch))
                for path, values in before.items():
                    if path in after and after[path].shape == values.shape:
                        found[path] = torch.maximum(
                            found[path], torch.tensor(difference(values, after[path]))
                        )
        self._noise = found


def slopes_of(loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor | None]:
    """Slopes of a loss by weights, within `Lab.ready`, got as training gets them.

    By `backward`, which every model bears that can be trained: a reentrant checkpoint does not bear
    `torch.autograd.grad`.
    """
    loss.backward()  # type: ignore[no-untyped-call]
    slopes = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    return slopes


def attempt(
    action: Callable[[], Any], explain: Callable[[BaseException], str]
) -> tuple[Any, str | None]:
    """What an action gives, or why it failed."""
    try:
        return action(), None
    except Exception as error:
        return None, explain(error)
