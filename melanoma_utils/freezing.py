"""Layers that a training keeps as they came, and what that saves."""

import torch
from torch import nn
from torch.func import functional_call

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def freeze_layers(backbone: nn.Module, n_layers: int) -> list[nn.Module]:
    """Takes the gradients from the first convolutions of a backbone, in the order in which it lists them, and from the
    batch norms among them.

    Args:
        backbone: the network.
        n_layers: how many convolutions.

    Returns:
        Those batch norms; keeping their mean and variance, by evaluation mode, is the caller's.

    Raises:
        ValueError: the backbone has no more convolutions than that.
    """
    if not n_layers:
        return []
    layers = [m for m in backbone.modules() if next(m.parameters(recurse=False), None) is not None]
    is_convolution = [isinstance(layer, nn.Conv2d) for layer in layers]
    if n_layers >= sum(is_convolution):
        raise ValueError(f"N_FROZEN_LAYERS {n_layers}: the network has {sum(is_convolution)} convolutions, and at "
                         "least one is to be trained")
    n_seen, batch_norms = 0, []
    for layer, is_one in zip(layers, is_convolution, strict=True):
        n_seen += is_one
        if n_seen > n_layers:
            break
        for parameter in layer.parameters(recurse=False):  # a block's own scale; what is inside it has its own turn
            parameter.requires_grad_(False)
        batch_norms += [layer] * isinstance(layer, BATCH_NORM)
    return batch_norms


def fold_batch_norms(backbone: nn.Module, batch_norms: list[nn.Module]) -> nn.Module:
    """Returns a network of the same parameters that trains the same, up to rounding, and faster: batch norms that keep
    their mean and variance are scales and shifts, and are multiplied into the convolutions before them.

    Args:
        backbone: the network; it is returned as it is where torch.fx can't trace it, or there is nothing to fold.
        batch_norms: those of its batch norms that stay in evaluation mode.
    """
    if not batch_norms:
        return backbone
    frozen = {name for name, module in backbone.named_modules() if module in set(batch_norms)}
    try:
        traced = torch.fx.GraphModule(backbone, _LayerTracer().trace(backbone))
    except (torch.fx.proxy.TraceError, TypeError, NameError, RuntimeError, AssertionError):
        return backbone
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.target in frozen else None
        if before is None or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution = traced.get_submodule(before.target)
        if isinstance(convolution, nn.Conv2d) and traced.get_submodule(node.target).affine:
            traced.set_submodule(before.target, _FoldedConvolution(convolution, traced.get_submodule(node.target)))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


class _LayerTracer(torch.fx.Tracer):
    """Looks into everything but convolutions and batch norms, those that timm derives from torch's included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Returns whether the module is one node of the graph."""
        return isinstance(m, (nn.Conv2d, BATCH_NORM)) or super().is_leaf_module(m, module_qualified_name)


class _FoldedConvolution(nn.Module):
    """A convolution and the frozen batch norm after it as one convolution, computed from their parameters each time."""

    def __init__(self, convolution: nn.Conv2d, batch_norm: nn.Module):
        super().__init__()
        self.convolution, self.batch_norm = convolution, batch_norm
        self.activation = getattr(batch_norm, "act", nn.Identity())  # timm's batch norms end with one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what the batch norm returns of the convolution of x, (N, C, H, W)."""
        conv, bn = self.convolution, self.batch_norm
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)  # (C,)
        mean = bn.running_mean if conv.bias is None else bn.running_mean - conv.bias
        weight, shift = conv.weight * scale[:, None, None, None], bn.bias - mean * scale
        if type(conv).forward is nn.Conv2d.forward:
            return self.activation(conv._conv_forward(x, weight, shift))
        parameters = {"weight": weight} | ({} if conv.bias is None else {"bias": torch.zeros_like(conv.bias)})
        return self.activation(functional_call(conv, parameters, (x,)) + shift[:, None, None])  # it pads by itself
