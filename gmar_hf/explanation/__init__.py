"""One batch of images explained: why did the model give these logits, and which heads made them?

The story of a call, module by module: `engine` opens it; `request` says what is wanted, by a method of `methods`;
`passes` are the forwards and backwards that this takes, of the images as they are, masked (`masking`) or with
attention scaled; `trace` makes a forward and keeps what each layer computed; `backward` walks back through it once a
target, `layer` by layer, with the steps of `steps`, the scores of `head_scores` and the products of `rollout`;
`head_description` says what heads are like; `head_weights` brings weights that were given; `result` is what comes out;
`parity` holds it against full matrices.

The words:

- **explanation**: of one image and one class, its target. A batch has one a target an image.
- **target**: the logit (or the scalar made of logits) that is explained.
- **prefix token**: a token before the patches: class, distillation or register token.
- **readout**: how much the classifier reads of each token of the last hidden state; it sums to one over the tokens.
- **row**: a vector over the tokens that a rollout carries from the last layer to the first; it begins as the readout.
- **score** of a head: the norm of the gradient of the logit with respect to the head's attention. Not negative.
- **weight** of a head: its score's share of its layer. **Importance**: the weights that a method used.
- **contribution**: what a head, or one token through a head, adds to the logit, to first order. Signed, in logits.
- **path**: the model with the outputs of all attention layers scaled by a number between 0 (no attention) and 1 (as it
  is). Contributions averaged over it sum to what attention adds to the logit, up to the **completeness gap**.
- **value reference**: what a token's value is compared with in a contribution: nothing, a share of the mean value, or
  the head's output (a **removal**: attention to the token goes to all others).
- **attribution**: the map, one number a patch. **Heatmap**: its picture, of the image's size.
- **filling**, in arguments `baseline`: what hidden patches show instead of the image.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
