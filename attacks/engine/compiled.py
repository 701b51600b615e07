"""The objective of a chunk, with gradients where they are asked for, as one compiled function.

`torch.compile` does not see through a second derivative. Tracing does: every operation of the eager step, those of
autograd too, goes into one graph that has no autograd left in it, and that graph is compiled. On a GPU its launches are
to be captured as well, as one CUDA graph that is replayed; this has not run on one yet.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence

import torch
import torch._inductor
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from victims.choices import Compile
from victims.errors import Notice

Function = Callable[..., Sequence[Tensor]]
"""A stage's variables and what is fixed -> cost, images, labels; and the gradient in every variable, or the value."""

REPAID = 5_000  # evaluations; measured: to compile takes 15 (LeNet) to 100 s (ResNet-18), and saves 3 to 70 ms of each
AGREE = 1e-3  # relative, in float32


class Compiler:
    """Compiles evaluations, each graph once.

    Args:
        weights: tensors that never change; what is computed from them alone is computed once, and convolutions have
            them in the layout that is fastest.
    """

    def __init__(self, mode: Compile, weights: Iterable[Tensor]) -> None:
        self.mode, self.weights = mode, {place(weight) for weight in weights}
        self.known: dict[str, Function] = {}

    def repays(self, evaluations: int, device: torch.device) -> bool:
        """Whether a function that is evaluated so often should be compiled; the same on every machine."""
        return self.mode == "on" or (self.mode == "auto" and device.type == "cpu" and evaluations >= REPAID)

    def __call__(self, function: Function, inputs: Sequence[Tensor]) -> Function:
        """The function compiled for inputs of these shapes; itself, with a warning, where that cannot be done.

        What the function reads besides its inputs is read anew in every call: it may be changed in place, but not
        replaced.
        """
        plain = function(*inputs)  # first: what is computed once and kept must not be traced
        try:
            graph = make_fx(function)(*inputs)
            read = self._lifted(graph)
            packed = inputs[0].dtype != torch.float64  # whose convolutions torch cannot lay out anew
            settings = {"freezing": packed, "triton.cudagraphs": inputs[0].is_cuda}
            with torch.no_grad(), torch._inductor.config.patch(settings):
                text = graph.code + "".join(f"{t.dtype}{t.shape}{t.stride()}" for t in (*inputs, *read))
                if text not in self.known:
                    self.known[text] = torch._inductor.compile(graph, [*inputs, *read])
                fast = own(self.known[text](*inputs, *read))
        except Exception as error:  # of tracer, compiler and C++ compiler, which may not be there: nothing is lost
            reason = f"cannot be compiled ({str(error).strip().splitlines()[0]})"
        else:
            if agree(fast[:1], plain[:1]) and agree(fast[3:], plain[3:]):
                compiled = self.known[text]
                return torch.no_grad()(lambda *inputs: own(compiled(*inputs, *read)))
            reason = "is another one when it is compiled"
        warnings.warn(f"the objective {reason}; going on without.", Notice, stacklevel=2)
        return function

    def _lifted(self, graph: GraphModule) -> list[Tensor]:
        """Turn all tensors that a graph holds into further inputs of it, but for the weights."""
        lifted: dict[str, tuple[torch.fx.Node, Tensor]] = {}
        last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
        for node in graph.graph.find_nodes(op="get_attr"):
            held = getattr(graph, node.target)
            if place(held) in self.weights:
                continue
            if node.target not in lifted:
                with graph.graph.inserting_after(last):
                    last = graph.graph.placeholder(f"read{node.target}")
                lifted[node.target] = last, held
            node.replace_all_uses_with(lifted[node.target][0])
            graph.graph.erase_node(node)
        graph.recompile()
        return [held for _, held in lifted.values()]


def own(outputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Outputs that stay as they are: those of a CUDA graph are overwritten when it is replayed."""
    return [tensor.clone() for tensor in outputs] if outputs[0].is_cuda else outputs


def place(tensor: Tensor) -> int:
    """Where a tensor's memory begins, whatever view of it this is."""
    return tensor.untyped_storage().data_ptr()


def agree(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether tensors are the same but for rounding, all together."""
    one, other = (torch.cat([tensor.flatten().double() for tensor in tensors]) for tensors in (some, others))
    far = (one - other).nan_to_num().norm() > AGREE * other.nan_to_num().norm()
    return torch.equal(one.isnan(), other.isnan()) and not far
