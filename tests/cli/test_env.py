"""`gmar-hf env`: what it tells of the machine, and what it does not."""

import json
import platform

import torch
import transformers

from tests.helpers.commands import printed


def test_versions_and_devices(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    facts = json.loads(printed(run("env", "--json")))
    assert facts["torch"] == torch.__version__
    assert facts["transformers"] == transformers.__version__
    assert facts["python"] == platform.python_version()
    assert facts["devices"]
    lines = printed(run("env")).splitlines()
    assert lines == [f"{name + ':':18}{fact}" for name, fact in facts.items()]
    assert "hf_secret" not in "".join(lines)
    assert platform.node() not in "".join(lines)
