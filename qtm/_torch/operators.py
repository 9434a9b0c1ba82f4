"""The operators that represent a circuit in graphs of torch's compiler.

`torch.compile` and `torch.export` trace a module to a graph of operators. Its arguments are tensors and plain
values, so an operator gets the name of a module (`qtm._torch.compiled_modules`), and runs that module eagerly.
Imported only when torch compiles: eager calls use no operator, which would take about 50 us more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from qtm._errors import UnsupportedError
from qtm._torch.compiled_modules import module_named

_KEPT = "_qtm_kept"  # attribute of a ticket: residuals of the forward pass for the first backward pass
_DEVICES = ("cpu", "cuda")
# A CUDA graph that torch's compiler records would replay kernels without Python: nothing would hold the residuals.
# Where torch has no such tag, the ticket, which is always on the CPU, keeps it from recording one.
_TAGS: dict[str, Any] = {"tags": [torch.Tag.cudagraph_unsafe]} if hasattr(torch.Tag, "cudagraph_unsafe") else {}


@torch.library.custom_op(
    "qtm::outputs",
    mutates_args=(),
    device_types=_DEVICES,
    schema="(str name, Tensor? inputs, Tensor[] sets, bool[] by) -> (Tensor, Tensor)",
    **_TAGS,
)
def outputs(name: str, inputs: Tensor | None, sets: Sequence[Tensor], by: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Outputs (batch, outputs) of a module at inputs (batch, inputs) and sets, each (parameters,), and a ticket.

    ``by``: whether derivatives by the inputs, and then by each set, are needed. The ticket carries the residuals
    of the forward pass.
    """
    module = module_named(name)
    ticket = torch.zeros(1, dtype=torch.uint8)
    if not any(by):
        with _as_outside(differentiable=False):
            return module._values_at(inputs, sets), ticket
    kept = _evaluated(name, inputs, sets, by)
    setattr(ticket, _KEPT, kept)
    return kept[0].detach(), ticket


@torch.library.custom_op(
    "qtm::pull_back",
    mutates_args=(),
    device_types=_DEVICES,
    schema="(str name, Tensor? inputs, Tensor[] sets, bool[] by, Tensor ticket, Tensor cotangent) -> Tensor[]",
    **_TAGS,
)
def pull_back(
    name: str, inputs: Tensor | None, sets: Sequence[Tensor], by: Sequence[bool], ticket: Tensor, cotangent: Tensor
) -> list[Tensor]:
    """Derivatives of `outputs` with respect to the tensors that ``by`` marks, in order; cotangent (batch, outputs)."""
    kept = ticket.__dict__.pop(_KEPT, None)
    if kept is None:  # taken by an earlier backward pass, or dropped by the compiler
        kept = _evaluated(name, inputs, sets, by)
    values, wanted = kept
    with _as_outside(differentiable=True):
        found = torch.autograd.grad(values, wanted, cotangent, allow_unused=True)
    gradients = [torch.zeros_like(t) if g is None else g for t, g in zip(wanted, found, strict=True)]
    # Derivatives of several sets may be views of one tensor, which an operator must not return.
    return gradients if len(gradients) == 1 else [g.clone() for g in gradients]


def _evaluated(
    name: str, inputs: Tensor | None, sets: Sequence[Tensor], by: Sequence[bool]
) -> tuple[Tensor, list[Tensor]]:
    """Outputs with their graph, and the tensors whose derivatives are needed."""
    module = module_named(name)
    rows_wanted, *sets_wanted = by
    with _as_outside(differentiable=True):
        rows = None if inputs is None else inputs.detach().requires_grad_(rows_wanted)
        own = [one.detach().requires_grad_(wanted) for one, wanted in zip(sets, sets_wanted, strict=True)]
        values = module._values_at(rows, own)
    return values, [leaf for leaf in (rows, *own) if leaf is not None and leaf.requires_grad]


# Dispatch keys that torch excludes inside of an operator or a compiled graph, and plain torch code relies on:
# without "Conjugate", for example, a product with the lazy conjugate of a tensor uses the tensor itself.
_NEEDED = (
    "AutogradFunctionality", "AutogradCPU", "AutogradCUDA", "AutogradOther", "ADInplaceOrView", "Conjugate", "Negative",
    "ZeroTensor",
)  # fmt: skip


@contextmanager
def _as_outside(*, differentiable: bool) -> Iterator[None]:
    """Torch as it is outside of operators."""
    include, exclude = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    for key in _NEEDED:
        exclude = exclude.remove(getattr(torch._C.DispatchKey, key))
    with torch._C._ForceDispatchKeyGuard(include, exclude), torch.set_grad_enabled(differentiable):
        yield


# Shapes and dtypes, without values


@outputs.register_fake
def _fake_outputs(
    name: str, inputs: Tensor | None, sets: Sequence[Tensor], by: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    module = module_named(name)
    batch = 1 if inputs is None else inputs.shape[0]
    dtype = sets[0].dtype
    if not module._is_real:
        dtype = torch.complex64 if dtype is torch.float32 else torch.complex128
    ticket = sets[0].new_empty(1, dtype=torch.uint8, device="cpu")
    return sets[0].new_empty((batch, module._output_size), dtype=dtype), ticket


@pull_back.register_fake
def _fake_pull_back(
    name: str, inputs: Tensor | None, sets: Sequence[Tensor], by: Sequence[bool], ticket: Tensor, cotangent: Tensor
) -> list[Tensor]:
    tensors = zip([inputs, *sets], by, strict=True)
    return [t.new_empty(t.shape) for t, wanted in tensors if wanted and t is not None]


# Derivatives


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.name, rows, sets, ctx.by = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(rows, *sets, output[1])


def _backward(ctx: Any, cotangent: Tensor | None, _: Any) -> tuple[Any, ...]:
    rows, *sets, ticket = ctx.saved_tensors
    if cotangent is None:
        return None, None, [None] * len(sets), None
    found = iter(pull_back(ctx.name, rows, sets, ctx.by, ticket, cotangent))
    by_rows, *by_sets = [next(found) if wanted else None for wanted in ctx.by]
    return None, by_rows, by_sets, None


def _refuse_second(ctx: Any, *cotangents: Any) -> Any:
    raise UnsupportedError(
        "second derivatives of a compiled module are not supported; call the module itself, not the one that "
        "torch.compile returned"
    )


outputs.register_autograd(_backward, setup_context=_keep)
pull_back.register_autograd(_refuse_second)


# Batches of `torch.vmap`


def _slices(size: int, dims: tuple[Any, ...], args: tuple[Any, ...]) -> Iterator[list[Any]]:
    """The arguments of each member of a batch, including those in lists."""
    for member in range(size):
        yield [_slice(arg, dim, member) for arg, dim in zip(args, dims, strict=True)]


def _slice(arg: Any, dim: Any, member: int) -> Any:
    if isinstance(arg, list | tuple):
        return [_slice(a, d, member) for a, d in zip(arg, dim, strict=True)] if isinstance(dim, list | tuple) else arg
    return arg if dim is None else arg.select(dim, member)


def _outputs_of_batch(info: Any, dims: tuple[Any, ...], name: str, inputs: Any, sets: Any, by: Any) -> Any:
    if dims[1] is not None and all(dim is None for dim in dims[2]):
        rows = inputs.movedim(dims[1], 0)
        values = outputs(name, rows.flatten(0, 1), sets, by)[0].unflatten(0, rows.shape[:2])
    else:
        each = _slices(info.batch_size, dims, (name, inputs, sets, by))
        values = torch.stack([outputs(*arguments)[0] for arguments in each])
    return (values, torch.zeros(1, dtype=torch.uint8)), (0, None)


def _pull_back_batch(
    info: Any, dims: tuple[Any, ...], name: str, inputs: Any, sets: Any, by: Any, ticket: Tensor, cotangent: Tensor
) -> Any:
    given = name, inputs, sets, by, torch.zeros(1, dtype=torch.uint8), cotangent
    found = [pull_back(*arguments) for arguments in _slices(info.batch_size, (*dims[:4], None, dims[5]), given)]
    stacked = [torch.stack(gradients) for gradients in zip(*found, strict=True)]
    return stacked, [0] * len(stacked)


if hasattr(outputs, "register_vmap"):  # since torch 2.5
    outputs.register_vmap(_outputs_of_batch)
    pull_back.register_vmap(_pull_back_batch)
