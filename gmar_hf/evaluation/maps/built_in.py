"""The methods that come along, in the order of the tables."""

from gmar_hf.evaluation.maps import controls
from gmar_hf.evaluation.maps import libraries as library_maps
from gmar_hf.evaluation.maps.legrad import legrad
from gmar_hf.evaluation.maps.method import MapMethod, explained

BUILT_IN = (
    MapMethod(
        "contribution",
        explained(method="contribution"),
        2,
        about="what attention to a patch adds to the class's logit or takes from it, to first order; signed",
    ),
    MapMethod(
        "masked-contribution",
        explained(method="contribution", num_masks=4, mask_baseline="blur"),
        9,  # four passes, and the whole image's logits
        baseline="blur",
        about="contributions averaged over four images of which a random half is blurred, in opposite pairs; signed",
    ),
    MapMethod(
        "partition-contribution",
        explained(method="contribution", num_masks=4, mask_baseline="blur", mask_pattern="partition"),
        9,
        baseline="blur",
        about="contributions averaged over four images, another quarter of the patches blurred in each; signed",
    ),
    MapMethod(
        "gradient-rollout",
        explained(method="gradient-rollout"),
        2,
        about="attention times its gradient, positive parts, rolled out through the layers (Chefer et al. 2021)",
    ),
    MapMethod(
        "gmar-l1",
        explained(method="gmar", norm="l1"),
        2,
        about="rollout of heads weighted by the L1 norm of their attention's gradient (Jo et al. 2025)",
    ),
    MapMethod("gmar-l2", explained(method="gmar", norm="l2"), 2, about="the same with the L2 norm"),
    MapMethod(
        "rollout",
        explained(method="rollout"),
        1,
        about="attention, heads averaged, rolled out through the layers (Abnar and Zuidema 2020); no class in it",
    ),
    MapMethod(
        "attention",
        explained(method="attention"),
        1,
        about="the last layer's attention, heads averaged; no class in it",
    ),
    MapMethod(
        "legrad",
        legrad,
        2,
        about="positive gradients of every layer's attention (Bousselham et al. 2024)",
    ),
    MapMethod(
        "integrated-gradients",
        library_maps.integrated_gradients,
        64,
        baseline="blur",
        needs=("captum",),
        about="pixels' gradients along 32 images from the blurred one to the image (captum); signed",
    ),
    MapMethod(
        "occlusion",
        library_maps.occlusion,
        lambda patches: patches + 1,
        baseline="blur",
        needs=("captum",),
        about="what the logit loses when one patch is blurred (captum); signed",
    ),
    MapMethod(
        "input-x-gradient",
        library_maps.input_x_gradient,
        2,
        baseline="zero",
        needs=("captum",),
        about="pixel values times the logit's gradient (captum); signed",
    ),
    MapMethod(
        "grad-cam",
        library_maps.grad_cam,
        2,
        needs=("torchcam",),
        about="the last layer's features weighted by their mean gradient, positive part (torch-cam)",
    ),
    MapMethod(
        "gmar-shuffled",
        controls.shuffled_weights,
        3,
        about="control: GMAR with each layer's weights dealt out to other heads",
    ),
    MapMethod("gmar-uniform", controls.uniform_weights, 1, about="control: GMAR with equal weights, which is rollout"),
    MapMethod("edges", controls.edges, 0, about="control: where the image has edges; knows no model"),
    MapMethod("centre-blob", controls.centre_blob, 0, about="control: a blob in the middle; knows no image"),
    MapMethod("random", controls.random, 0, about="control: noise"),
)
