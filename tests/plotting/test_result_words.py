"""What captions and pages say of a result."""

import pytest

from gmar_hf.plotting.result_words import (
    account_of,
    answer_of,
    caption_of,
    has_amounts,
    marks_of,
    path_notes,
    sides_of,
    title_of,
)


def path_result(whole, part, gap=0.0, **more):
    return {"label": "cat", "explained_logit": whole, "attention_contribution": part, "completeness_gap": gap, **more}


@pytest.mark.parametrize(
    ("total", "gap", "told"),
    [
        (5.0, 2.4, None),  # 2.6 should have come out
        (5.0, -4.0, None),
        (5.0, 2.6, ("+5.0", "+2.4")),
        (1.0, -4.0, ("+1.0", "+5.0")),
        (1.0, -0.9, None),
        (-1.0, -4.0, ("-1.0", "+3.0")),
        (2.0, 3.0, ("+2.0", "-1.0")),
    ],
)
def test_amounts_cannot_be_read_from_sums_that_are_half_or_twice_what_they_should_be(total, gap, told):
    result = path_result(8.0, total - gap, gap)
    notes = path_notes(result)
    assert has_amounts(result) == (told is None) == (not notes)
    if told:
        assert f"come to {told[0]} logits, where all attention adds {told[1]}" in notes[0]


@pytest.mark.parametrize(
    ("whole", "part", "first", "second"),
    [(3.0, 1.0, None, None), (3.0, -1.0, "cat", "dog"), (-3.0, -1.0, None, None), (-3.0, 1.0, "dog", "cat")],
)
def test_attention_that_speaks_against_the_label_that_is_ahead_is_told(whole, part, first, second):
    notes = path_notes(path_result(whole, part, versus="dog"))
    if first is None:
        assert not notes
    else:
        assert notes[0].startswith(f"{first} is ahead of {second} by 3.0 logits, but attention speaks for {second}")
        assert f"without any attention {first} is ahead by 4.0" in notes[0]
    assert not path_notes(path_result(whole, part))  # a label's logit alone is ahead of nothing


def test_the_account_adds_up():
    assert account_of(path_result(8.0, 9.5)) == "logit 8.0 = attention 9.5 + rest -1.5"
    ahead, behind = (account_of(path_result(whole, 1.0, versus="dog")) for whole in (2.0, -2.0))
    assert ahead == "lead 2.0 = attention 1.0 + rest 1.0"
    assert behind == "lead -2.0 = attention 1.0 + rest -3.0"
    # Rounded alone the three numbers would be 4.8 = 0.8 + 4.1.
    assert account_of(path_result(4.84, 0.76)) == "logit 4.8 = attention 0.8 + rest 4.0"
    assert account_of({"explained_logit": 8.0}) == ""


def test_captions_say_what_a_map_cannot():
    shown = {"score": 0.25, "unit": "share of attention", "method": "gmar", "box": (0, 0, 9, 9)}
    alone, both = {"label": "cat", **shown}, {"label": "cat", "versus": "dog", "versus_score": 0.5, **shown}
    both["head_importance"] = "weights, as only rollouts have them"
    assert caption_of(alone, (9, 9)) == "cat: 0.25 · gmar, share of attention"
    assert caption_of(both, (9, 9)) == (
        "cat: 0.25, not dog: 0.50 · gmar, share of attention · nearly the same for both labels"
    )
    rough = path_result(8.0, 1.0, 9.0, **{**shown, "unit": "logits", "method": "path"})
    assert caption_of(rough, (9, 9)) == (
        "cat: 0.25 · path, logits · logit 8.0 = attention 1.0 + rest 7.0 · do not read amounts"
    )


@pytest.mark.parametrize(("whole", "part"), [(0.04, -0.04), (1.0, -0.04), (0.04, -1.0)])
def test_what_rounds_to_nothing_speaks_for_nobody(whole, part):
    result = path_result(whole, part, versus="dog")
    assert not path_notes(result)
    assert not marks_of(result)


def test_silent_heads_have_amounts():
    assert has_amounts(path_result(8.0, 0.0))


def test_two_classes_of_one_name():
    """ImageNet has two cranes: a bird and a machine."""
    result = path_result(1.0, -0.5, versus="cat")
    assert sides_of(result) == ("for cat", "for the other cat")
    assert path_notes(result)[0].startswith(
        "cat is ahead of the other cat by 1.0 logits, but attention speaks for the"
    )
    assert path_notes(path_result(-1.0, 0.5, versus="cat"))[0].startswith("the other cat is ahead of cat by 1.0")
    assert marks_of(result) == ["attention speaks for the other cat"]


def test_results_of_old_files():
    old = {"label": "cat", "score": 0.5, "completeness_gap": 9.0}
    assert has_amounts(old)
    assert not has_amounts({**old, "note": "The heads' contributions come to +12.0 logits"})
    assert (account_of(old), marks_of(old), title_of(old)) == ("", [], "cat: 0.50")


def test_long_labels_leave_room():
    result = {"label": f"king crab, {'Alaska ' * 40}", "score": 0.5}
    assert title_of(result) == "king crab, Alaska Alaska Alaska…: 0.50"
    assert sides_of(result)[0] == "for king crab, Alaska Alaska Alaska…"

    assert title_of({"label": "x" * 99, "score": 0.5}) == f"{'x' * 31}…: 0.50"


def test_the_models_answer_is_named_once():
    assert answer_of({"label": "cat"}) == ""
    assert answer_of({"label": "cat", "predicted_label": "cat"}) == ""
    assert answer_of({"label": "cat", "predicted_label": "dog"}) == "dog"
    assert answer_of({"label": "cat", "predicted_label": "dog", "versus": "dog"}) == ""
    assert sides_of({"label": "cat", "versus": "dog"}) == ("for cat", "for dog")
