"""One batch of images explained: why did the model give these logits, and which heads made them?

The story of a call, module by module: `engine` opens it; `request` says what is wanted, by a method of `methods`;
`passes` are the forwards and backwards that this takes, of the images as they are, masked (`masking`) or with
attention scaled; `trace` makes a forward and keeps what each layer computed; `backward` walks back through it once a
target, `layer` by layer, with the steps of `steps`, the scores of `head_scores` and the products of `rollout`;
`head_description` says what heads are like; `head_weights` brings weights that were given; `result` is what comes out;
`parity` holds it against full matrices.

The words are those of the glossary in docs/concepts.md.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
