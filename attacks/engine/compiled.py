"""The objective of a chunk, with its gradients if needed, as one compiled function.

`torch.compile` cannot compile a second derivative. Tracing can: all operations of the eager step, including those of
autograd, go into one graph without autograd, and that graph is compiled. On a GPU its kernel launches are to be
captured as a CUDA graph, which every later call replays; this has not been tested on a GPU yet.

A function is compiled before its first use, or not at all: if it replaced the eager one whenever it is ready, results
would depend, by rounding, on how fast the machine is.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from victims.choices import Compile
from victims.errors import Notice
from victims.trial import said

Function = Callable[..., Sequence[Tensor]]
"""A stage's variables and `fixed` -> cost, images, labels, and the gradient in every variable or the value."""

REPAID = 10_000  # evaluations; measured: in the first run ResNet-18 needs 4,000, ConvNet 15,000 and LeNet 17,000
AGREE = 1e-3  # relative, in float32


class Compiler:
    """Compiles functions, each distinct graph once.

    Args:
        seconds: after which compiling a graph is given up.
    """

    def __init__(self, mode: Compile, seconds: float) -> None:
        self.mode, self.seconds = mode, seconds
        self.known: dict[str, Function | None] = {}  # None of those that could not be compiled

    def repays(self, evaluations: int, device: torch.device) -> bool:
        """Whether compiling a function that is called this often saves time; the same on every machine.

        Larger graphs take longer to compile and save more in every evaluation, so that one number does for all. What
        is compiled already does not count: rows must not depend on it.
        """
        return self.mode == "on" or (self.mode == "auto" and device.type == "cpu" and evaluations >= REPAID)

    def __call__(self, function: Function, inputs: Sequence[Tensor]) -> Function:
        """The function compiled for inputs of these shapes; if that fails, a warning and the function itself.

        Tensors that the function reads besides its inputs are read again in every call: they may change in place, but
        must not be replaced.
        """
        from attacks.engine.compiled_graphs import Layout, TooLateError, load  # takes a second

        plain = function(*inputs)  # first, so that values computed once and cached are not traced
        try:
            with tracing(TracingContext(FakeTensorMode())):  # one for all operations, which takes half of the time
                graph = make_fx(function)(*inputs)
            read = lifted(graph)
            layouts = [Layout.of(tensor) for tensor in (*inputs, *read)]
            text = f"{graph.code}{layouts}"
            if text not in self.known:
                self.known[text] = None
                self.known[text] = load(graph, layouts, self.seconds)
            compiled = self.known[text]
            if compiled is None:
                return function
            fast = torch.no_grad()(lambda *inputs: own(compiled(*inputs, *read)))
            if same(fast(*inputs), plain) and same_elsewhere(fast, function, inputs):
                return fast
            self.known[text] = None
            reason = "changes when it is compiled"
        except TooLateError:
            reason = f"is not compiled within {self.seconds:g} s, see --compile-s"
        except Exception as error:  # of tracer, compiler or a missing C++ compiler: the function still works
            reason = f"cannot be compiled ({said(error)})"
        warnings.warn(f"the objective {reason}; continuing without compiling.", Notice, stacklevel=2)
        return function


def lifted(graph: GraphModule) -> list[Tensor]:
    """Turn all tensors that a graph holds into additional inputs."""
    found: dict[str, tuple[torch.fx.Node, Tensor]] = {}
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for node in graph.graph.find_nodes(op="get_attr"):
        if node.target not in found:
            with graph.graph.inserting_after(last):
                last = graph.graph.placeholder(f"read{node.target}")
            found[node.target] = last, getattr(graph, node.target)
        node.replace_all_uses_with(found[node.target][0])
        graph.graph.erase_node(node)
    for name in found:
        delattr(graph, name)
    graph.recompile()
    return [held for _, held in found.values()]


def own(outputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Copies of a CUDA graph's outputs, which the next replay overwrites; other outputs unchanged."""
    return [tensor.clone() for tensor in outputs] if outputs[0].is_cuda else outputs


def same_elsewhere(fast: Function, function: Function, inputs: Sequence[Tensor]) -> bool:
    """Whether two functions agree on other inputs too: what a model computes outside of torch is a constant of a graph.

    Where the function has no finite values there, nothing can be said.
    """
    others = [tensor * 0.9 + 0.05 if tensor.is_floating_point() else tensor for tensor in inputs]
    plain = function(*others)
    return not all(tensor.isfinite().all() for tensor in plain) or same(fast(*others), plain)


def same(found: Sequence[Tensor], plain: Sequence[Tensor]) -> bool:
    """Whether two results of an objective agree up to rounding: the cost, and the gradients."""
    return agree(found[:1], plain[:1]) and agree(found[3:], plain[3:])


def agree(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether all tensors together are the same up to rounding."""
    one, other = (torch.cat([tensor.flatten().double() for tensor in tensors]) for tensors in (some, others))
    far = (one - other).nan_to_num().norm() > AGREE * other.nan_to_num().norm()
    return torch.equal(one.isnan(), other.isnan()) and not far
