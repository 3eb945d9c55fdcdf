"""The method once more, written from its description alone: slow loops in NumPy, float64, every matrix explicit.

Two halves. `explicit_reference` runs a copy of a model in float64 with explicit attention and keeps what the formulas
speak of: A, G, V, the readout. The other functions turn these into scores, weights and maps. Nothing here shares code
with the package, and nothing takes its shortcuts: G and A are whole matrices, products are full N x N by N x N.

Axes: L layers, H heads, N tokens (prefix tokens first, then rows x cols patches), d channels of a head.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import eager_mask

from tests.helpers import naflex, zoo

ATTENTION_NAME = "oracle_explicit"


@dataclass(frozen=True)
class Reference:
    """What one image and one target leave behind in an explicit float64 run.

    Attributes:
        attention: A (L, H, N, N), rows sum to one.
        gradient: G (L, H, N, N), the derivative of the explained scalar by A.
        value: V (L, H, N, d).
        value_gradient: dV (L, H, N, d); the oracle's formulas do not use it, it proves the identity c_j = <V_j, dV_j>.
        output: O (L, H, N, d), likewise for c = <O, dO>.
        output_gradient: dO (L, H, N, d).
        readout: r0 (N,), sums to one.
        logits: (C,).
        scalar: The explained scalar itself.
        rows: Rows of the patch grid.
        cols: Columns of the patch grid.
    """

    attention: np.ndarray
    gradient: np.ndarray
    value: np.ndarray
    value_gradient: np.ndarray
    output: np.ndarray
    output_gradient: np.ndarray
    readout: np.ndarray
    logits: np.ndarray
    scalar: float
    rows: int
    cols: int

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches."""
        return self.attention.shape[-1] - self.rows * self.cols


# ----------------------------------------------------------------------------------------------------------------
# Head scores and weights
# ----------------------------------------------------------------------------------------------------------------


def head_scores(gradient: np.ndarray, norm: str) -> np.ndarray:
    """Return s (L, H): the sum of |G| ("l1") or the root of the sum of squares of G ("l2") over all pairs."""
    num_layers, num_heads, num_tokens, _ = gradient.shape
    scores = np.zeros((num_layers, num_heads))
    for layer in range(num_layers):
        for head in range(num_heads):
            total = 0.0
            for query in range(num_tokens):
                for key in range(num_tokens):
                    entry = float(gradient[layer, head, query, key])
                    if norm == "l1":
                        total += abs(entry)
                    elif norm == "l2":
                        total += entry * entry
                    else:
                        raise ValueError(norm)
            scores[layer, head] = total if norm == "l1" else math.sqrt(total)
    return scores


def head_weights(scores: np.ndarray) -> np.ndarray:
    """Return w (L, H): the scores of a layer divided by their sum; 1/H in a layer whose scores are all zero."""
    num_layers, num_heads = scores.shape
    weights = np.zeros((num_layers, num_heads))
    for layer in range(num_layers):
        total = 0.0
        for head in range(num_heads):
            total += scores[layer, head]
        for head in range(num_heads):
            weights[layer, head] = scores[layer, head] / total if total > 0 else 1.0 / num_heads
    return weights


def uniform_weights(num_layers: int, num_heads: int) -> np.ndarray:
    """Return w (L, H) of plain rollout: 1/H everywhere."""
    return np.full((num_layers, num_heads), 1.0 / num_heads)


# ----------------------------------------------------------------------------------------------------------------
# Matrices and maps
# ----------------------------------------------------------------------------------------------------------------


def matrix_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return left @ right for two N x N matrices, entry by entry."""
    size = left.shape[0]
    product = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            product[i, j] = np.sum(left[i, :] * right[:, j])
    return product


def row_times_matrix(row: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return row @ matrix, (N,)."""
    size = row.shape[0]
    result = np.zeros(size)
    for j in range(size):
        result[j] = np.sum(row * matrix[:, j])
    return result


def patch_map(tokens: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Cut the last rows * cols of N token values into a map (rows, cols), row by row."""
    num_prefix_tokens = tokens.shape[0] - rows * cols
    image = np.zeros((rows, cols))
    for row in range(rows):
        for col in range(cols):
            image[row, col] = tokens[num_prefix_tokens + row * cols + col]
    return image


def fused_attention(attention: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return A~ (N, N) of one layer from A (H, N, N) and w (H,)."""
    fused = np.zeros(attention.shape[1:])
    for head in range(attention.shape[0]):
        fused += weights[head] * attention[head]
    return fused


def with_residual(fused: np.ndarray, residual_weight: float) -> np.ndarray:
    """Return (A~ + a I) / (1 + a)."""
    return (fused + residual_weight * np.eye(fused.shape[0])) / (1.0 + residual_weight)


def rollout_matrix(
    attention: np.ndarray, weights: np.ndarray, residual_weight: float = 1.0, start_layer: int = 0
) -> np.ndarray:
    """Return R = A^[L] ... A^[start_layer] (N, N), the last layer on the left."""
    product = np.eye(attention.shape[-1])
    for layer in range(start_layer, attention.shape[0]):
        fused = fused_attention(attention[layer], weights[layer])
        product = matrix_product(with_residual(fused, residual_weight), product)
    return product


def weighted_rollout_map(
    reference: Reference, weights: np.ndarray, residual_weight: float = 1.0, start_layer: int = 0
) -> np.ndarray:
    """Return the patch part of r0 R as (rows, cols) for given head weights (L, H)."""
    rollout = rollout_matrix(reference.attention, weights, residual_weight, start_layer)
    return patch_map(row_times_matrix(reference.readout, rollout), reference.rows, reference.cols)


def gmar_map(reference: Reference, norm: str = "l1", residual_weight: float = 1.0, start_layer: int = 0) -> np.ndarray:
    """Return GMAR's map (rows, cols): the rollout whose head weights are normalised gradient norms."""
    weights = head_weights(head_scores(reference.gradient, norm))
    return weighted_rollout_map(reference, weights, residual_weight, start_layer)


def rollout_map(reference: Reference, residual_weight: float = 1.0, start_layer: int = 0) -> np.ndarray:
    """Return attention rollout (rows, cols): every head weighs 1/H."""
    num_layers, num_heads = reference.attention.shape[:2]
    return weighted_rollout_map(reference, uniform_weights(num_layers, num_heads), residual_weight, start_layer)


def raw_attention_map(reference: Reference) -> np.ndarray:
    """Return the patch part of r0 mean_h A[L, h] as (rows, cols)."""
    num_heads = reference.attention.shape[1]
    last_layer = fused_attention(reference.attention[-1], np.full(num_heads, 1.0 / num_heads))
    return patch_map(row_times_matrix(reference.readout, last_layer), reference.rows, reference.cols)


def gradient_rollout_map(reference: Reference, start_layer: int = 0) -> np.ndarray:
    """Return the gradient rollout of Chefer et al. (ICCV 2021) as (rows, cols).

    E[l] = mean_h relu(G * A); R starts as the identity and R <- R + E[l] R from the first layer to the last.
    """
    num_layers, num_heads, num_tokens, _ = reference.attention.shape
    relevance = np.eye(num_tokens)
    for layer in range(start_layer, num_layers):
        edges = np.zeros((num_tokens, num_tokens))
        for head in range(num_heads):
            for query in range(num_tokens):
                for key in range(num_tokens):
                    edge = reference.gradient[layer, head, query, key] * reference.attention[layer, head, query, key]
                    edges[query, key] += max(float(edge), 0.0) / num_heads
        relevance = relevance + matrix_product(edges, relevance)
    return patch_map(row_times_matrix(reference.readout, relevance), reference.rows, reference.cols)


# ----------------------------------------------------------------------------------------------------------------
# Contributions
# ----------------------------------------------------------------------------------------------------------------


def token_contributions(reference: Reference) -> np.ndarray:
    """Return c (L, H, N): for each head and key token j, the sum over queries i of A_ij G_ij."""
    num_layers, num_heads, num_tokens, _ = reference.attention.shape
    contributions = np.zeros((num_layers, num_heads, num_tokens))
    for layer in range(num_layers):
        for head in range(num_heads):
            for key in range(num_tokens):
                total = 0.0
                for query in range(num_tokens):
                    total += float(reference.attention[layer, head, query, key]) * float(
                        reference.gradient[layer, head, query, key]
                    )
                contributions[layer, head, key] = total
    return contributions


def head_contributions(reference: Reference) -> np.ndarray:
    """Return c (L, H): the sum of a head's edge contributions A_ij G_ij over all pairs, prefix tokens included."""
    num_layers, num_heads = reference.attention.shape[:2]
    contributions = np.zeros((num_layers, num_heads))
    per_token = token_contributions(reference)
    for layer in range(num_layers):
        for head in range(num_heads):
            for token in range(per_token.shape[-1]):
                contributions[layer, head] += per_token[layer, head, token]
    return contributions


def centred_head_contributions(reference: Reference) -> np.ndarray:
    """Return (L, H): the sum over queries i of <O_i - mean_k O_k, dO_i>."""
    num_layers, num_heads, num_tokens, _ = reference.output.shape
    contributions = np.zeros((num_layers, num_heads))
    for layer in range(num_layers):
        for head in range(num_heads):
            mean = np.sum(reference.output[layer, head], axis=0) / num_tokens
            for query in range(num_tokens):
                contributions[layer, head] += float(
                    np.dot(reference.output[layer, head, query] - mean, reference.output_gradient[layer, head, query])
                )
    return contributions


def prefix_contributions(reference: Reference) -> np.ndarray:
    """Return the part of the contributions that sits on prefix tokens, (L, H, prefix tokens)."""
    return token_contributions(reference)[:, :, : reference.num_prefix_tokens]


def head_maps(reference: Reference) -> np.ndarray:
    """Return every head's contribution map, (L, H, rows, cols)."""
    per_token = token_contributions(reference)
    num_layers, num_heads = per_token.shape[:2]
    maps = np.zeros((num_layers, num_heads, reference.rows, reference.cols))
    for layer in range(num_layers):
        for head in range(num_heads):
            maps[layer, head] = patch_map(per_token[layer, head], reference.rows, reference.cols)
    return maps


def referenced_token_contributions(reference: Reference, subtract: float | str, scale: float = 1.0) -> np.ndarray:
    """Return (L, H, N): the sum over queries i of A_ij <g_i, V_j - what V_j is compared with>.

    Args:
        reference: A run whose outputs were multiplied by `scale`; then `gradient` and `output` are those of the
            product, and O_i before it is `output / scale`.
        subtract: A share of the mean value over the tokens, or "output", the head's output O_i.
        scale: What the run multiplied the outputs by.
    """
    num_layers, num_heads, num_tokens, _ = reference.attention.shape
    contributions = np.zeros((num_layers, num_heads, num_tokens))
    for layer in range(num_layers):
        for head in range(num_heads):
            values = reference.value[layer, head]
            mean = np.sum(values, axis=0) / num_tokens
            for key in range(num_tokens):
                for query in range(num_tokens):
                    compared = (
                        reference.output[layer, head, query] / scale if subtract == "output" else subtract * mean
                    )
                    contributions[layer, head, key] += reference.attention[layer, head, query, key] * float(
                        np.dot(reference.output_gradient[layer, head, query], values[key] - compared)
                    )
    return contributions


def contribution_map(reference: Reference, start_layer: int = 0) -> np.ndarray:
    """Return the image's contribution map (rows, cols): head maps summed over layers from `start_layer` and heads."""
    maps = head_maps(reference)
    image = np.zeros((reference.rows, reference.cols))
    for layer in range(start_layer, maps.shape[0]):
        for head in range(maps.shape[1]):
            image += maps[layer, head]
    return image


# ----------------------------------------------------------------------------------------------------------------
# The explicit run
# ----------------------------------------------------------------------------------------------------------------


class Tape:
    """An attention function that keeps every layer's A, V and O, in the order in which the layers run."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.attentions: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.outputs: list[torch.Tensor] = []

    def __call__(self, module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
        # The eager functions of transformers take the softmax in float32 even in a float64 model, hence this one.
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = torch.einsum("bhid,bhjd->bhij", query, key) * scaling
        if attention_mask is not None:
            scores = scores + attention_mask
        tiny = torch.finfo(scores.dtype)
        # A row of minus infinities, which attends to nothing, is a row of zeros.
        exponentials = torch.exp(scores - scores.max(dim=-1, keepdim=True).values.clamp_min(tiny.min))
        attention = exponentials / exponentials.sum(dim=-1, keepdim=True).clamp_min(tiny.tiny)
        output = self.scale * torch.einsum("bhij,bhjd->bhid", attention, value)
        self.attentions.append(attention)
        self.values.append(value)
        self.outputs.append(output)
        return output.transpose(1, 2), attention


class _EagerTape:
    """The same of a model that is off the attention interface, from transformers' own explicit attention in it.

    Hooks keep what its modules make: A, and V and O with the heads side by side (B, N, H d).
    """

    def __init__(self, eager: PreTrainedModel, scale: float) -> None:
        self.attentions: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.outputs: list[torch.Tensor] = []

        def keep(module, args, results):
            output = scale * results[0]
            self.outputs.append(output)
            self.attentions.append(results[1])
            return output, results[1]

        for module in eager.modules():
            if type(module).__name__ == "Data2VecVisionSelfAttention":
                module.value.register_forward_hook(lambda module, args, output: self.values.append(output))
                module.register_forward_hook(keep)


def by_head(tensor: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Return (B, H, N, d) from heads side by side (B, N, H d); what has its heads apart stays as it is."""
    return tensor if tensor.ndim == 4 else tensor.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def backbone(model: PreTrainedModel) -> torch.nn.Module:
    """Return the vision backbone: the one direct child of the classifier that is a pretrained model itself."""
    (child,) = [child for child in model.children() if isinstance(child, PreTrainedModel)]
    return child


def select_scalar(logits: torch.Tensor, target: int | list[int] | Callable | None) -> torch.Tensor:
    """Return the explained scalar of every image, (B,).

    Args:
        logits: (B, C).
        target: One class for all images, one per image, a function of the logits, or None for the predicted class.
    """
    if callable(target):
        return target(logits)
    if target is None:
        target = logits.argmax(dim=-1).tolist()
    if isinstance(target, int):
        target = [target] * logits.shape[0]
    return torch.stack([logits[image, index] for image, index in enumerate(target)])


def explicit_reference(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    target: int | list[int] | Callable | None = None,
    scale: float = 1.0,
    **model_kwargs,
) -> list[Reference]:
    """Run a float64 copy of a model with explicit attention and differentiate one scalar per image.

    Args:
        model: A classifier of the zoo, or a module around a backbone with its config; it is copied and stays as it is.
        pixel_values: (B, 3, height, width), any floating dtype.
        target: As in `select_scalar`.
        scale: What the output of every attention layer is multiplied by.
        **model_kwargs: Passed to the model's forward.

    Returns:
        One `Reference` per image.
    """
    explicit, tape = _explicit_copy(model, scale)
    is_padded = naflex.is_naflex(model) or naflex.is_naflex(getattr(model, "inner", [None])[0])

    kept: dict[str, torch.Tensor] = {}
    handle = backbone(explicit).register_forward_hook(
        lambda module, args, output: kept.update(hidden_state=output.last_hidden_state)
    )
    with torch.enable_grad():
        # A frozen model would give an A that needs no gradient.
        images = pixel_values.detach().double().requires_grad_(True)
        logits = explicit(**naflex.inputs_of(explicit, images), **model_kwargs).logits
    handle.remove()

    num_layers = _vision_config(explicit).num_hidden_layers
    if len(tape.attentions) != num_layers:
        raise AssertionError(f"{len(tape.attentions)} attention calls in a model of {num_layers} layers")
    height, width = images.shape[-2:]
    patch_size = _vision_config(explicit).patch_size
    patch_height, patch_width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    grid = (height // patch_height, width // patch_width)
    references = differentiate(tape, kept["hidden_state"], logits, target, grid)
    return [naflex.without_padding(each) for each in references] if is_padded else references


def differentiate(
    tape: Tape | _EagerTape,
    hidden: torch.Tensor,
    logits: torch.Tensor,
    target: int | list[int] | Callable | None,
    grid: tuple[int, int],
) -> list[Reference]:
    """Differentiate one scalar per image, of a run that is on a tape.

    Args:
        tape: What its layers computed.
        hidden: The last hidden state (B, N, channels), which the head reads.
        logits: (B, C).
        target: As in `select_scalar`.
        grid: Rows and columns of the patches.

    Returns:
        One `Reference` per image.
    """
    num_layers, num_heads = len(tape.attentions), tape.attentions[0].shape[1]
    scalars = select_scalar(logits, target)
    # Images do not see each other in evaluation mode, so the sum's gradient is each image's own.
    gradients = torch.autograd.grad(scalars.sum(), [*tape.attentions, *tape.values, *tape.outputs, hidden])
    stacked = [
        torch.stack([by_head(tensor, num_heads) for tensor in group], dim=1).detach().numpy()
        for group in (
            tape.attentions,
            gradients[:num_layers],
            tape.values,
            gradients[num_layers : 2 * num_layers],
            tape.outputs,
            gradients[2 * num_layers : 3 * num_layers],
        )
    ]
    return [
        Reference(
            *(array[image] for array in stacked),
            readout=_readout(gradients[-1][image].numpy()),
            logits=logits[image].detach().numpy(),
            scalar=float(scalars[image].detach()),
            rows=grid[0],
            cols=grid[1],
        )
        for image in range(len(logits))
    ]


def _explicit_copy(model: PreTrainedModel, scale: float) -> tuple[PreTrainedModel, Tape | _EagerTape]:
    """Return a float64 copy of a model with explicit attention, and what will keep A, V and O of its forward."""
    if isinstance(model, zoo.Data2VecVisionForImageClassification):
        explicit = zoo.in_eager(model).double().eval()
        explicit.config.output_attentions = True
        return explicit, _EagerTape(explicit, scale)
    tape = Tape(scale)
    AttentionInterface.register(ATTENTION_NAME, tape)
    # Without its own entry here a padding mask would silently become None.
    AttentionMaskInterface.register(ATTENTION_NAME, eager_mask)
    explicit = copy.deepcopy(model).double().eval()
    # By name where there is a vision part: SigLIP's and CLIP's classifiers have no text tower, and for want of one
    # transformers would warn.
    names = {"": ATTENTION_NAME, "vision_config": ATTENTION_NAME}
    switched = explicit if isinstance(explicit, PreTrainedModel) else backbone(explicit)
    switched.set_attn_implementation(names if "vision_config" in switched.config.sub_configs else ATTENTION_NAME)
    return explicit, tape


def _vision_config(model: PreTrainedModel) -> PreTrainedConfig:
    return getattr(model.config, "vision_config", model.config)


def _readout(hidden_gradient: np.ndarray) -> np.ndarray:
    """Return r0 (N,) from dy/dh (N, channels): the L2 norm of each token's gradient, divided by their sum."""
    norms = np.zeros(hidden_gradient.shape[0])
    for token in range(hidden_gradient.shape[0]):
        norms[token] = math.sqrt(float(np.sum(hidden_gradient[token] ** 2)))
    return norms / np.sum(norms)
