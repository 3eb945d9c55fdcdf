"""One run at a time in a folder: a second one is refused, and takes nothing from the first."""

import os
from functools import partial

import pytest

import gmar_hf
from gmar_hf import demo
from gmar_hf.runs import run_folder
from gmar_hf.utils.files import alone_in


@pytest.mark.skipif(os.name != "posix", reason="no such locks")
@pytest.mark.parametrize(
    "run", [gmar_hf.survey, partial(gmar_hf.evaluate, methods=["rollout"], metrics=["sparseness"])]
)
def test_a_second_run_is_refused(monkeypatch, tmp_path, run):
    model, image_processor = demo.load("vit")
    monkeypatch.setattr(run_folder, "alone_in", partial(alone_in, patience=0))
    checkpoints = tmp_path / "out" / "checkpoints"
    checkpoints.mkdir(parents=True)
    with alone_in("`--out`", checkpoints):
        with pytest.raises(gmar_hf.ArgumentError, match="must be a folder that no other run writes to now; got one"):
            run(model, demo.scenes(2), image_processor, output_dir=tmp_path / "out")
        assert checkpoints.is_dir()  # where the other has saved nothing yet
    run(model, demo.scenes(2), image_processor, output_dir=tmp_path / "out")
    assert not checkpoints.exists()
    with pytest.raises(gmar_hf.ArgumentError, match="finished"):
        run(model, demo.scenes(2), image_processor, output_dir=tmp_path / "out")
