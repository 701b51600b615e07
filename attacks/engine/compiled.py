"""The objective of a chunk, with its gradients if needed, as one compiled function.

`torch.compile` cannot compile a second derivative. Tracing can: all operations of the eager step, including those of
autograd, go into one graph without autograd, and that graph is compiled. On a GPU its kernel launches are to be
captured as a CUDA graph, which every later call replays; this has not been tested on a GPU yet.
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
"""A stage's variables and `fixed` -> cost, images, labels, and the gradient in every variable or the value."""

REPAID = 5_000  # evaluations; measured: compiling takes 15 (LeNet) to 100 s (ResNet-18), and saves 3 to 70 ms of each
AGREE = 1e-3  # relative, in float32


class Compiler:
    """Compiles functions, each distinct graph once.

    Args:
        weights: tensors that never change; anything computed from them alone is computed once, and convolutions get
            them in the fastest layout.
    """

    def __init__(self, mode: Compile, weights: Iterable[Tensor]) -> None:
        self.mode, self.weights = mode, {memory(weight) for weight in weights}
        self.known: dict[str, Function] = {}

    def repays(self, evaluations: int, device: torch.device) -> bool:
        """Whether compiling a function that is called this often saves time; the same on every machine."""
        return self.mode == "on" or (self.mode == "auto" and device.type == "cpu" and evaluations >= REPAID)

    def __call__(self, function: Function, inputs: Sequence[Tensor]) -> Function:
        """The function compiled for inputs of these shapes; if that fails, a warning and the function itself.

        Tensors that the function reads besides its inputs are read again in every call: they may change in place, but
        must not be replaced.
        """
        plain = function(*inputs)  # first, so that values computed once and cached are not traced
        try:
            graph = make_fx(function)(*inputs)
            read = self._lifted(graph)
            packed = inputs[0].dtype != torch.float64  # torch cannot change the layout of its convolutions
            settings = {"freezing": packed, "triton.cudagraphs": inputs[0].is_cuda}
            with torch.no_grad(), torch._inductor.config.patch(settings):
                text = graph.code + "".join(f"{t.dtype}{t.shape}{t.stride()}" for t in (*inputs, *read))
                if text not in self.known:
                    self.known[text] = torch._inductor.compile(graph, [*inputs, *read])
                fast = own(self.known[text](*inputs, *read))
        except Exception as error:  # of tracer, compiler or a missing C++ compiler: the function still works
            reason = f"cannot be compiled ({str(error).strip().splitlines()[0]})"
        else:
            if agree(fast[:1], plain[:1]) and agree(fast[3:], plain[3:]):
                compiled = self.known[text]
                return torch.no_grad()(lambda *inputs: own(compiled(*inputs, *read)))
            reason = "changes when it is compiled"
        warnings.warn(f"the objective {reason}; continuing without compiling.", Notice, stacklevel=2)
        return function

    def _lifted(self, graph: GraphModule) -> list[Tensor]:
        """Turn all tensors that a graph holds, except the weights, into additional inputs."""
        lifted: dict[str, tuple[torch.fx.Node, Tensor]] = {}
        last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
        for node in graph.graph.find_nodes(op="get_attr"):
            held = getattr(graph, node.target)
            if memory(held) in self.weights:
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
    """Copies of a CUDA graph's outputs, which the next replay overwrites; other outputs unchanged."""
    return [tensor.clone() for tensor in outputs] if outputs[0].is_cuda else outputs


def memory(tensor: Tensor) -> int:
    """The address of a tensor's memory, the same for all of its views."""
    return tensor.untyped_storage().data_ptr()


def agree(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether all tensors together are the same up to rounding."""
    one, other = (torch.cat([tensor.flatten().double() for tensor in tensors]) for tensors in (some, others))
    far = (one - other).nan_to_num().norm() > AGREE * other.nan_to_num().norm()
    return torch.equal(one.isnan(), other.isnan()) and not far
