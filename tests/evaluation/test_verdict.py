"""Which map an evaluation says to believe: figures that can be checked in the head."""

import json

import numpy as np
import pytest

from gmar_hf.evaluation import Evaluation, Metric, Row
from gmar_hf.evaluation.bootstrap import Bootstrap
from gmar_hf.evaluation.judging import lead_of
from tests.helpers.evaluations import NASTY

FILLINGS = ("blur", "zero", "other")
SRG = "insertion_minus_deletion"
SWING = np.resize([-0.1, 0.1], 16)  # of 16 images, without a mean


def srg(name=SRG):
    return [Metric(name if filling == "blur" else f"{name}_{filling}", name, filling, True) for filling in FILLINGS]


def judged(maps, metrics=None, *, made_with=None, controls=(), num_images=16, rows_each=1):
    """An evaluation of maps with these figures, each a list of one a metric: a number, or one for each row."""
    metrics = srg() if metrics is None else metrics
    rows = [Row(f"{image}.png", 0, "cat", 0.5, True, image) for image in range(num_images) for _ in range(rows_each)]
    values = np.empty((len(rows), len(maps), len(metrics)))
    for place, figures in enumerate(maps.values()):
        for column, figure in enumerate(figures):
            values[:, place, column] = figure
    methods = [
        {"name": name, "baseline": (made_with or {}).get(name), "is_control": name in controls} for name in maps
    ]
    return Evaluation(settings={}, methods=methods, metrics=metrics, rows=rows, values=values)


def leads_of(verdict):
    return {lead.over: (round(lead.mean, 6), lead.status, lead.fillings) for lead in verdict.leads}


class TestTheChoice:
    def test_the_highest_mean_over_the_fillings(self):
        """2 for a; 1.8 for b, which is ahead under blur; 1 for c."""
        verdict = judged({"c": [1, 1, 1], "a": [2, 2, 2], "b": [2.4, 1.5, 1.5]}).verdict()
        assert (verdict.map, verdict.mean, verdict.fillings, verdict.is_settled) == ("a", 2.0, FILLINGS, True)
        assert leads_of(verdict) == {"b": (0.2, "ahead", FILLINGS), "c": (1.0, "ahead", FILLINGS)}
        assert [lead.over for lead in verdict.leads] == ["b", "c"]  # the nearest first
        assert verdict.sentences[0] == "Believe a on this model and these data."
        assert verdict.sentences[1] == (
            "Its insertion minus deletion is 2.00 (2.00 to 2.00), mean over blur, zero and other, 16 images."
        )
        assert "Ahead of b by 0.20 (0.20 to 0.20); of c by 1.00 (1.00 to 1.00)." in verdict.sentences

    def test_a_map_that_explain_calls_otherwise_is_named_as_one_calls_it(self):
        verdict = judged({"gmar-l1": [2, 2, 2], "rollout": [1, 1, 1]}).verdict()
        assert verdict.sentences[:2] == (
            "Believe gmar-l1 (gmar) on this model and these data.",
            'To draw it: method="gmar" of `explain`, the pipeline and `gmar-hf explain`.',
        )

    def test_where_it_was_measured_the_logit_decides(self):
        metrics = [*srg(), *srg(f"{SRG}_logit")]
        verdict = judged({"a": [9, 9, 9, 1, 1, 1], "b": [1, 1, 1, 2, 2, 2]}, metrics).verdict()
        assert (verdict.map, verdict.criterion, verdict.mean) == ("b", f"{SRG}_logit", 2.0)
        assert "Its insertion minus deletion of the logit is 2.00" in verdict.text
        assert [(loss.metric, loss.to) for loss in verdict.losses] == [
            (SRG, "a"), (f"{SRG}_zero", "a"), (f"{SRG}_other", "a"),
        ]  # fmt: skip

    def test_nobody_wins_by_the_filling_it_is_made_with(self):
        """Under zero and other the second is behind: 1 against 2; its 9 under blur does not count."""
        verdict = judged({"a": [2, 2, 2], "masked": [9, 1, 1]}, made_with={"masked": "blur"}).verdict()
        assert verdict.map == "a"
        assert leads_of(verdict) == {"masked": (1.0, "ahead", ("zero", "other"))}
        (loss,) = verdict.losses
        assert (loss.metric, loss.baseline, loss.to, loss.mean, loss.made_with_it) == (
            SRG,
            "blur",
            "masked",
            7.0,
            True,
        )
        assert (
            "It loses in insertion minus deletion under blur to masked by 7.00 (7.00 to 7.00), which is made with "
            "that filling."
        ) in verdict.sentences
        assert "Not judged under their own filling: masked, made with blur." in verdict.sentences

    def test_a_map_made_with_a_filling_may_win_under_the_others(self):
        verdict = judged({"a": [2, 2, 2], "masked": [0, 3, 3]}, made_with={"masked": "blur"}).verdict()
        assert (verdict.map, verdict.mean, verdict.fillings) == ("masked", 3.0, ("zero", "other"))
        assert leads_of(verdict) == {"a": (1.0, "ahead", ("zero", "other"))}
        assert "mean over zero and other" in verdict.text

    def test_it_must_be_ahead_of_all_that_were_made_with_none(self):
        """Of a, the best over all three, it is; of b, which has 4 under zero and other, it is not."""
        maps = {"a": [2, 2, 2], "b": [-9, 4, 4], "masked": [0, 3, 3]}
        assert judged(maps, made_with={"masked": "blur"}).verdict().map == "a"

    def test_a_map_may_be_made_with_several_fillings(self):
        """Under other, the one that is left, it has 1 against 2."""
        verdict = judged({"a": [2, 2, 2], "expected": [9, 9, 1]}, made_with={"expected": "blur, zero"}).verdict()
        assert (verdict.map, verdict.made_with) == ("a", {"expected": ("blur", "zero")})
        assert leads_of(verdict) == {"expected": (1.0, "ahead", ("other",))}
        assert [(loss.baseline, loss.made_with_it) for loss in verdict.losses] == [("blur", True), ("zero", True)]
        assert "Not judged under their own filling: expected, made with blur and zero." in verdict.text

    def test_maps_made_with_different_fillings_meet_under_the_rest(self):
        maps = {"a": [0, 0, 0], "b": [9, 1, 2], "c": [1, 9, 1]}
        verdict = judged(maps, made_with={"b": "blur", "c": "zero"}).verdict()
        assert verdict.map == "b"  # 1.5 ahead of a; c is 1 ahead
        assert leads_of(verdict) == {"c": (1.0, "ahead", ("other",)), "a": (1.5, "ahead", ("zero", "other"))}

    def test_where_all_are_made_with_fillings(self):
        maps, made_with = {"b": [9, 1, 2], "c": [1, 9, 3]}, {"b": "blur", "c": "zero"}
        assert judged(maps, made_with=made_with).verdict().map == "c"  # 3 against 2 under other
        verdict = judged({"b": [9, 1], "c": [1, 9]}, srg()[:2], made_with=made_with).verdict()
        assert verdict.text == (
            "Which map to believe cannot be said: every filling is one that some map was made with."
        )

    def test_a_filling_that_was_not_measured_disqualifies_from_nothing(self):
        verdict = judged({"a": [2, 2, 2], "black": [3, 3, 3]}, made_with={"black": "black"}).verdict()
        assert (verdict.map, verdict.fillings, verdict.made_with) == ("black", FILLINGS, {})

    def test_only_rows_with_all_figures_count(self):
        """Without "other" in 6 of 16 images, as of those that are alone in their batch; all of the rest say a."""
        alone = np.where(np.arange(16) < 6, np.nan, 1)
        tilted = np.where(np.arange(16) < 6, 100, 1)
        verdict = judged({"a": [2, 2, 2 * alone], "b": [tilted, tilted, alone]}).verdict()
        assert (verdict.map, verdict.num_images) == ("a", 10)
        assert leads_of(verdict) == {"b": (1.0, "ahead", FILLINGS)}
        never = judged({"a": [2, 2, np.nan], "b": [1, 1, np.nan]}).verdict()
        assert never.fillings == ("blur", "zero")


class TestWhatCannotBeSaid:
    @pytest.mark.parametrize(
        ("evaluation", "reason"),
        [
            (judged({"a": [1, 1, 1], "b": [2, 2, 2]}, num_images=7, rows_each=2), "figures are of 7 images, and it"),
            (judged({"a": [1], "b": [2]}, [Metric("iou", "iou", None, True)]), "was measured"),
            (judged({"a": [np.nan] * 3, "b": [np.nan] * 3}), "was measured"),
            (judged({"a": [1, 1, 1]}), "takes a map and another one"),
            (judged({"a": [1, 1, 1], "b": [2, 2, 2]}, controls=("a", "b")), "takes a map and another one"),
        ],
    )
    def test_it_is_said_that_it_cannot(self, evaluation, reason):
        verdict = evaluation.verdict()
        assert (verdict.map, verdict.is_settled) == (None, False)
        assert verdict.text.startswith("Which map to believe cannot be said: ")
        assert reason in verdict.text

    def test_no_map_is_believed_that_is_not_ahead_of_a_control(self):
        verdict = judged({"a": [1 + SWING, 1, 1], "noise": [1, 1, 1]}, controls=("noise",)).verdict()
        assert verdict.sentences[0] == (
            "Believe none of these maps yet: a, the first, may be ahead of a control by chance."
        )
        assert not verdict.is_settled

    def test_controls_are_never_believed(self):
        verdict = judged({"a": [1, 1, 1], "edges": [2, 2, 2]}, controls=("edges",)).verdict()
        assert (verdict.map, verdict.control.over, verdict.control.mean) == ("a", "edges", -1.0)
        assert verdict.control.status == "behind"
        assert verdict.sentences[0] == "Believe none of these maps: edges, a control, is ahead of a."
        assert "Over edges by -1.00 (-1.00 to -1.00), of the controls the nearest." in verdict.sentences
        assert verdict.leads == ()


class TestWhatIsOpen:
    def test_a_rival_that_is_ahead_where_both_are_judged(self):
        verdict = judged({"p": [9, 1, 1], "q": [1, 3, 3], "r": [0, 2, 2]}, made_with={"r": "blur"}).verdict()
        assert verdict.map == "p"
        assert {lead.over: lead.status for lead in verdict.leads}["r"] == "behind"
        assert verdict.sentences[0] == "p is the first, but behind r where both are judged."

    def test_how_many_more_images_settle_it(self):
        """Differences of 0.3 and -0.2 in turn, mean 0.05: measured on as many images as were asked for, it is settled.

        Their standard error is 0.25 / 4, the interval of 16 images reaches about 1.96 of these towards 0: 0.12 from a
        mean of 0.05, so that it must shrink to two fifths, with about six times as many images.
        """
        difference = 0.05 + 2.5 * SWING
        verdict = judged({"a": [1 + difference] * 3, "b": [1] * 3}).verdict()
        (lead,) = verdict.leads
        assert (verdict.map, lead.status) == ("a", "open")
        assert lead.mean == pytest.approx(0.05)
        assert 60 < lead.more_images < 110
        assert verdict.sentences[0] == "a is the first, but its lead over b may be chance."
        assert "Open: over b by 0.05 (-0.0" in verdict.text
        assert "more images would settle it." in verdict.text

        def low(num_images):
            return Bootstrap(range(num_images), num_draws=20_000).interval(np.resize(difference, num_images))["low"]

        assert low(2 * round((16 + lead.more_images) * 0.65)) > 0  # twice 0.65 of them is more than enough
        assert low(2 * round((16 + lead.more_images) * 0.35)) < 0  # and twice 0.35 is not

    @pytest.mark.parametrize(
        ("figures", "status", "more_images"),
        [
            ((1.0, 0.1, 1.9), "ahead", None),
            ((-1.0, -1.9, -0.1), "behind", None),
            ((1.0, -1.0, 3.0), "open", 31),  # half as wide: 40 images, and one more leaves 0 out
            ((-0.5, -2.0, 0.5), "open", 31),  # the same below 0
            ((1.0, 0.0, 2.0), "open", 1),  # 0 is its end
            ((0.5, -4.0, 5.0), "open", 801),  # 9 times: 810 images, and one
            ((0.5, -4.5, 5.5), "level", None),  # 10 times: hopeless
            ((0.0, -1.0, 1.0), "level", None),
            ((0.0, 0.0, 0.0), "level", None),
        ],
    )
    def test_by_hand(self, figures, status, more_images):
        lead = lead_of(
            dict(zip(("mean", "low", "high"), figures, strict=True)), over="b", fillings=FILLINGS, num_images=10
        )
        assert (lead.status, lead.more_images) == (status, more_images)

    def test_maps_alike_are_level(self):
        verdict = judged({"a": [1 + SWING] * 3, "b": [1 - SWING] * 3, "c": [0.5] * 3}).verdict()
        assert {lead.over: lead.status for lead in verdict.leads} == {"b": "level", "c": "ahead"}
        assert "Level with b by 0.00 (" in verdict.text
        assert "settle" not in verdict.text

    def test_rows_of_one_image_are_one(self):
        """Twenty rows each make intervals no narrower."""
        few, many = (
            judged({"a": [1 + np.repeat(SWING, each)] * 3, "b": [1] * 3}, rows_each=each).verdict().leads[0]
            for each in (1, 20)
        )
        assert (few.low, few.high, few.num_images) == pytest.approx((many.low, many.high, many.num_images))


class TestWhereItLoses:
    def test_the_best_other_map_of_every_figure(self):
        metrics = [
            *srg(),
            Metric("energy_pointing_game", "energy_pointing_game", None, True),
            Metric("energy_on_other", "energy_on_other", None, False),
            Metric("sparseness", "sparseness", None, None),
            Metric("class_sensitivity", "class_sensitivity", None, False),
        ]
        maps = {
            "a": [3, 3, 3, 0.5, 0.2, 0.5, 0.5],
            "b": [1, 4, 1, 0.6, 0.4, 0.9, 0.1],
            "c": [1, 5, 2, 0.5 + SWING, 0.1, 0.1, 0.1],
            "edges": [1, 9, 1, 0.9, 0.0, 0.9, 0.0],
        }
        verdict = judged(maps, metrics, controls=("edges",)).verdict()
        assert verdict.map == "a"
        assert [(loss.metric, loss.to, round(loss.mean, 6)) for loss in verdict.losses] == [
            (f"{SRG}_zero", "c", 2.0), ("energy_pointing_game", "b", 0.1), ("energy_on_other", "c", 0.1),
        ]  # fmt: skip
        assert (
            "It loses in insertion minus deletion under zero to c by 2.00 (2.00 to 2.00); in energy pointing game to "
            "b by 0.10 (0.10 to 0.10); in energy on other to c by 0.10 (0.10 to 0.10)."
        ) in verdict.sentences

    def test_nowhere(self):
        verdict = judged({"a": [2, 2, 2], "b": [2 + SWING, 1, 1]}).verdict()
        assert verdict.losses == ()
        assert "It loses in no figure by more than chance explains." in verdict.sentences


class TestMapsAtChance:
    def test_the_same_map_for_every_class(self):
        metrics = [*srg(), Metric("class_sensitivity", "class_sensitivity", None, False)]
        maps = {"a": [3, 3, 3, 0.95], "b": [1, 1, 1, 0.85], "rollout": [2, 2, 2, 1], "edges": [0, 0, 0, 1]}
        verdict = judged(maps, metrics, controls=("edges",)).verdict()
        assert list(verdict.same_for_all_classes) == ["a", "rollout"]
        assert verdict.sentences[0] == ("Believe a, which says nothing about the class, on this model and these data.")
        assert (
            "At chance for the class, about which they say nothing: a: correlation with another "
            "class's map 0.95; rollout: correlation with another class's map 1.00."
        ) in verdict.sentences

    def test_names_that_end_in_brackets_get_no_second_pair(self):
        metrics = [*srg(), Metric("class_sensitivity", "class_sensitivity", None, False)]
        maps = {"a": [3, 3, 3, 0.1], "gmar-l1": [1, 1, 1, 1], "recommended": [2, 2, 2, 1]}
        text = judged(maps, metrics, made_with={"gmar-l1": "blur"}).verdict().text
        assert "Not judged under their own filling: gmar-l1 (gmar), made with blur." in text
        assert "gmar-l1 (gmar): correlation with another class's map 1.00; recommended: " in text
        assert ") (correlation" not in text
        assert ") (blur" not in text

    def test_a_quarter_of_a_mosaic_is_chance(self):
        metrics = [*srg(), Metric("grid_pointing_game", "grid_pointing_game", None, True)]
        maps = {"a": [3, 3, 3, 0.5], "gmar": [1, 1, 1, 0.26 + SWING], "worse": [1, 1, 1, 0.2]}
        verdict = judged(maps, metrics).verdict()
        assert verdict.same_for_all_classes == {
            "gmar": ("grid pointing game 0.26, by chance 0.25",),
            "worse": ("grid pointing game 0.20, by chance 0.25",),
        }

    def test_on_mosaics_alone_the_grid_pointing_game_decides(self):
        """Of nine photos a ninth is chance: 0.11."""
        metrics = [
            Metric("grid_pointing_game", "grid_pointing_game", None, True),
            Metric("right_quadrant", "right_quadrant", None, True),
        ]
        maps = {"a": [0.5, 0.4], "gmar": [0.12 + SWING, 0.2], "masked": [0.2, 0.8]}
        evaluation = judged(maps, metrics, made_with={"masked": "blur"})
        evaluation.settings["mosaics"] = 3
        verdict = evaluation.verdict()
        assert (verdict.map, verdict.criterion, verdict.fillings) == ("a", "grid_pointing_game", ())
        assert verdict.sentences[:2] == (
            "Believe a on this model and these data.", "Its grid pointing game is 0.50 (0.50 to 0.50), 16 images.",
        )  # fmt: skip
        assert leads_of(verdict)["masked"] == (0.3, "ahead", ())  # whatever it was made with: nothing is filled
        assert verdict.same_for_all_classes == {"gmar": ("grid pointing game 0.12, by chance 0.11",)}
        assert verdict.noise == ("gmar",)
        assert [(loss.metric, loss.to) for loss in verdict.losses] == [("right_quadrant", "masked")]

    def test_they_are_told_even_where_no_map_can_be_chosen(self):
        metrics = [Metric("class_sensitivity", "class_sensitivity", None, False)]
        verdict = judged({"rollout": [1], "b": [0]}, metrics).verdict()
        assert verdict.map is None
        assert list(verdict.same_for_all_classes) == ["rollout"]
        assert verdict.sentences[1].startswith("At chance for the class, about which they say nothing: rollout: ")
        few = judged({"rollout": [1], "b": [0]}, metrics, num_images=7).verdict()
        assert few.same_for_all_classes == {}

    def test_noise_is_what_the_random_control_has(self):
        maps = {"a": [3, 3, 3], "b": [1 + SWING, 1, 1], "random": [1, 1, 1]}
        verdict = judged(maps, controls=("random",)).verdict()
        assert verdict.noise == ("b",)
        assert verdict.sentences[-1] == "Not ahead of noise, or by no more than chance explains: b."
        alone = judged({"a": [3, 3, 3], "b": [SWING, 0, 0], "c": [-1, -1, -1]}).verdict()
        assert alone.noise == ("b", "c")  # noise has about 0


def test_names_cannot_steer_a_terminal_and_all_of_it_is_json():
    maps = {NASTY: [2, 2, 2], NASTY + "2": [1, 1, 1]}
    verdict = judged(maps, made_with={NASTY + "2": "blur"}).verdict()
    assert "\x1b" not in verdict.text
    assert "\\x1b[2J" in verdict.text
    content = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert (content["map"], content["text"]) == (NASTY, verdict.text)
    assert content["leads"][0]["over"] == NASTY + "2"
    assert content["rule"].startswith(
        "How the map to believe is chosen: the one with the highest insertion minus deletion"
    )
