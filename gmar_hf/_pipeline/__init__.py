"""What [`~gmar_hf.GMARExplainer`] is made of, one question a module.

`parameters` says what it can be told; `models`, `images` and `texts` what it takes; `scores` and `results` what it
gives.
"""

# Their import sets off that of `gmar_hf.pipeline`, which needs the modules here: none of them may have been begun.
import transformers.pipelines  # noqa: F401
