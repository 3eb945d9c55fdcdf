"""Damaged files of every kind that is read: each is read whole and right, or refused in our own words."""

import hashlib
import json
import math
import random
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gmar_hf import Explanation
from gmar_hf.errors import ArtifactError, ImageError
from gmar_hf.images.image_file import read_bytes
from gmar_hf.report.card import write_card
from gmar_hf.report.head_importance_report import HeadImportanceReport
from gmar_hf.report.settings import check_heads, check_moments, plain_settings
from tests.explanation.test_result import GOOD
from tests.helpers.reports import make_report
from tests.images.test_odd_files import expected, odd_file
from tests.report.test_settings import FULL, at, places

VALUES = (None, True, -1, 0, 3, 10**30, 0.5, -1e308, "", "text", "\ud800", [], {}, [1], {"a": [2]}, [[]])


def damaged(content, numbers):
    """Bytes of which some are flipped, missing, doubled, or stand at another place."""
    content = bytearray(content)
    start, end = sorted(numbers.randrange(len(content) + 1) for _ in range(2))
    match numbers.choice(["flip", "flip at the start", "truncate", "cut out", "swap", "zero", "double"]):
        case "flip":
            for _ in range(numbers.choice([1, 1, 3, 30])):
                content[numbers.randrange(len(content))] ^= 1 << numbers.randrange(8)
        case "flip at the start":  # where headers are
            content[numbers.randrange(min(len(content), 64))] ^= 1 << numbers.randrange(8)
        case "truncate":
            del content[start:]
        case "cut out":
            del content[start:end]
        case "swap":
            middle = (start + end) // 2
            content[start:end] = content[middle:end] + content[start:middle]
        case "zero":
            content[start:end] = bytes(end - start)
        case "double":
            content[start:start] = content[start:end]
    return bytes(content)


def edited(settings, numbers):
    """JSON values of which some are others, missing or more."""
    settings = json.loads(json.dumps(settings))
    for _ in range(numbers.choice([1, 1, 2, 5])):
        path = numbers.choice(list(places(settings)) or [()])
        if not path:
            break
        parent, value = at(settings, path[:-1]), numbers.choice(VALUES)
        if numbers.random() < 0.2:
            del parent[path[-1]]
        elif numbers.random() < 0.2 and isinstance(parent, dict):
            parent["more"] = value
        else:
            parent[path[-1]] = value
    return settings


def check_image(numbers):
    """What Pillow reads of the same bytes is what comes out, and where it reads nothing the file is refused."""
    _, content = odd_file(numbers)
    content = damaged(content, numbers)
    try:
        pixels, _ = expected(content)
    except Exception:  # decoders meet broken data with errors of any kind
        pixels = None
    if pixels is None:
        with pytest.raises(ImageError):
            read_bytes(content, "image")
        return "refused"
    try:
        image = read_bytes(content, "image")
    except ImageError as error:
        if "its depth is not known" not in str(error):  # it is not of numbers that damage has made NaN
            raise
        return "refused"
    assert (image.mode, image.info) == ("RGB", {})
    np.testing.assert_array_equal(np.asarray(image), pixels)
    return "read"


def check_report(numbers, folder, report):
    """Of a damaged file the report is the one that was saved; of edited settings it is one that passes all checks."""
    place = shutil.copytree(folder / "report", folder / "copy", dirs_exist_ok=True)
    name = numbers.choice(["config.json", "report.safetensors"])
    is_edited = name == "config.json" and numbers.random() < 0.7
    content = (place / name).read_bytes()
    if is_edited:
        content = json.dumps(edited(json.loads(content), numbers)).encode()
    else:
        content = damaged(content, numbers)
        if name == "report.safetensors" and numbers.random() < 0.5:  # as if somebody had written it so
            config = json.loads((place / "config.json").read_text())
            config["tensors_sha256"] = hashlib.sha256(content).hexdigest()
            (place / "config.json").write_text(json.dumps(config))
    (place / name).write_bytes(content)
    try:
        loaded = HeadImportanceReport.from_pretrained(place)
    except ArtifactError:
        return "refused"
    check_moments(plain_settings(loaded.settings), loaded.moments)
    check_heads(loaded.settings, loaded.means, loaded.traits)
    assert all(math.isfinite(value) for _, _, value in loaded.top_heads(3))
    assert repr(loaded)
    assert write_card(loaded.settings, loaded.moments, loaded.means, loaded.traits)
    return "read"


def check_explanation(numbers, folder, explanation):
    """Damage shows by the digest; settings that somebody edits, and so writes without one, are checked."""
    path = folder / "copy.safetensors"
    if numbers.random() < 0.7:
        path.write_bytes(damaged((folder / "explanation").read_bytes(), numbers))
        settings = dict(explanation.settings)
    else:
        with safe_open(folder / "explanation", "pt") as file:
            header = json.loads(file.metadata()["gmar_hf"])
        del header["sha256"]
        header = edited(header, numbers)
        settings = header.get("content")
        save_file(explanation.tensors(), path, metadata={"gmar_hf": json.dumps(header)})
    try:
        loaded = Explanation.load(path)
    except ArtifactError:
        return "refused"
    assert loaded.settings == settings
    assert list(loaded.tensors()) == list(explanation.tensors())
    for name, tensor in explanation.tensors().items():
        assert torch.equal(getattr(loaded, name), tensor), name
    assert repr(loaded)
    return "read"


@pytest.fixture
def check_files(tmp_path):
    report = make_report(**FULL)
    report.save_pretrained(tmp_path / "report")
    settings = {"grid": {"prefix": 1, "rows": 4, "cols": 6}, "method": "gmar-l1", "labels": ["a", "b"], "versions": {}}
    explanation = Explanation(**GOOD, settings=settings)
    explanation.save(tmp_path / "explanation")

    def check(seed, number):
        """Damage so many files, and count what became of each kind."""
        met = Counter()
        for index in range(number):
            numbers, kind = random.Random(f"{seed} {index}"), ("image", "report", "explanation")[index % 3]
            try:
                if kind == "image":
                    outcome = check_image(numbers)
                elif kind == "report":
                    outcome = check_report(numbers, tmp_path, report)
                else:
                    outcome = check_explanation(numbers, tmp_path, explanation)
            except BaseException as error:
                error.add_note(f"file {index} of seed {seed}, {kind}")
                raise
            met[f"{kind} {outcome}"] += 1
        return met

    return check


@pytest.mark.slow
def test_some_damaged_files(check_files):
    met = check_files(0, 100)
    assert met["report refused"]
    assert met["explanation refused"]


@pytest.mark.campaign
def test_many_damaged_files(check_files, record_property):
    met = check_files(1, 10_000)
    record_property("met", dict(met))
    assert len(met) == 6
