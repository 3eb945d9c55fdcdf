"""One batch of images explained: why did the model give these logits, and which heads made them?

The story of a call, module by module: `engine` opens it; `request` says what is wanted; `trace` makes the forward and
keeps what each layer computed; `backward` walks back through it once a target, with the steps of `methods` (`steps`),
the scores of `head_scores` and the products of `rollout`; `masking` hides patches where contributions are averaged;
`head_weights` brings weights that were given; `result` is what comes out; `parity` holds it against full matrices.

The words:

- **explanation**: of one image and one class, its target. A batch has one a target an image.
- **target**: the logit (or the scalar made of logits) that is explained.
- **prefix token**: a token before the patches: class, distillation or register token.
- **readout**: how much the classifier reads of each token of the last hidden state; it sums to one over the tokens.
- **row**: a vector over the tokens that a rollout carries from the last layer to the first; it begins as the readout.
- **score** of a head: the norm of the gradient of the logit with respect to the head's attention. Not negative.
- **weight** of a head: its score's share of its layer. **Importance**: the weights that a method used.
- **contribution**: what a head, or one token through a head, adds to the logit, to first order. Signed, in logits.
- **attribution**: the map, one number a patch. **Heatmap**: its picture, of the image's size.
- **filling**, in arguments `baseline`: what hidden patches show instead of the image.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
