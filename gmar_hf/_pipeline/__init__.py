"""What [`~gmar_hf.GMARExplainer`] is made of, one question a module.

`parameters` says what it can be told; `models`, `images` and `texts` what it takes; `scores` and `results` what it
gives.
"""
