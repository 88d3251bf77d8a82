"""What is said when somebody asks why."""

from __future__ import annotations

import json

import numpy as np
import pytest
from torch import nn

from lightning_gradguard.evidence import Evidence, Recall
from lightning_gradguard.inspector import Inspector
from lightning_gradguard.report.explain import explain, explain_layer
from lightning_gradguard.scope import Scope
from lightning_gradguard.structure import layer_notes
from tests.strategies import make_finding, make_frame, through_json

FADING = np.array([1e-7, 1e-6, 1e-4, 1.0, 1.0, 1.0])


def vanishing_run():
    inspector = Inspector()
    for step in range(40):
        frame = make_frame(step, FADING, update_ratio=1e-3 * FADING, loss=2.0)
        inspector.update(frame)
    return inspector


def test_evidence_is_that_of_the_onset_not_of_later_steps():
    inspector = vanishing_run()
    (finding,) = [f for f in inspector.findings if f.kind == "vanishing"]
    evidence = inspector.evidence(finding)
    assert evidence.steps == tuple(range(finding.step + 1))
    assert evidence.layers == tuple(f"l{i}" for i in range(6))
    assert evidence.grad_ratio == pytest.approx(FADING, rel=1e-6, abs=0.0)
    assert evidence.update_ratio == pytest.approx(1e-3 * FADING, rel=1e-6, abs=0.0)
    assert evidence.layer == finding.layers[0] == "l0"
    assert evidence.history_grad_ratio == pytest.approx([1e-7] * len(evidence.steps), rel=1e-6)
    assert set(evidence.loss) == {2.0}


def test_text_gives_the_rule_the_profile_the_history_and_the_advice():
    inspector = vanishing_run()
    (finding,) = [f for f in inspector.findings if f.kind == "vanishing"]
    explanation = explain(finding, inspector.evidence(finding))
    lines = str(explanation).split("\n")
    assert lines[1].startswith("Rule: over depth; 7 against a limit of ")
    rows = [line for line in lines if line.startswith("  ")]
    assert [row[2:6] for row in rows] == ["* l0", "* l1", "* l2", "  l3", "  l4", "  l5"]
    assert [row.count("#") for row in rows] == [1, 4, 11, 24, 24, 24]
    assert "Loss: 2 (step 0)" in str(explanation)
    assert lines[-1].startswith("Here: ")
    json.dumps(explanation.to_dict(), allow_nan=False, default=str)


def test_evidence_survives_a_checkpoint_and_a_resumed_run_goes_on():
    inspector = vanishing_run()
    (finding,) = [f for f in inspector.findings if f.kind == "vanishing"]
    resumed = through_json(inspector, Inspector())
    assert resumed.evidence(finding) == inspector.evidence(finding)
    resumed.update(make_frame(40, FADING))
    assert resumed.look_back("l1").steps == (40,)


def test_memory_is_bounded_in_steps_and_in_findings():
    recall = Recall()
    for number in range(300):
        recall.remember(make_frame(number))
        recall.keep(make_finding(step=number, episode_id=number + 1, layers=("l0",)))
    assert recall.look_back("l0").steps == tuple(range(100, 300))
    assert recall.evidence(300) is not None
    assert recall.evidence(280) is None


def test_what_is_not_finite_becomes_none_so_that_it_can_be_saved():
    recall = Recall()
    gradients = [np.inf, 1.0, np.nan, 1.0]
    recall.remember(make_frame(0, gradients, loss=None, global_grad_norm=np.nan))
    evidence = recall.look_back("l0")
    assert evidence.grad_ratio[:2] == (None, 1.0)
    assert (evidence.loss, evidence.global_grad_norm) == ((None,), (None,))
    assert Evidence.from_dict(json.loads(json.dumps(evidence.to_dict()))) == evidence


def test_norm_layers_are_not_in_the_profile():
    recall = Recall()
    recall.remember(make_frame(0, roles=("weights", "norm", "embedding", "weights")))
    assert recall.look_back("l0").layers == ("l0", "l3")


class Block(nn.Module):
    """A model with one of each."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(nn.init.ones_(nn.Linear(4, 1).weight))
        self.embed = nn.Embedding(5, 4)
        self.conv = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.old = nn.Linear(4, 4).requires_grad_(requires_grad=False)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


def notes_of(model, calls):
    return {layer: " ".join(notes) for layer, notes in layer_notes(model, calls).items()}


def test_notes_say_why_a_layer_is_left_out():
    calls = {"": 0, "embed": 1, "conv": 2, "norm": 3, "old": 4, "head": 5}
    notes = notes_of(Block(), calls)
    assert "left out where depth is judged: an embedding" in notes["embed"]
    assert "left out where depth is judged: a norm layer" in notes["norm"]
    assert "it holds other layers" in notes["(root)"]
    assert "its bias comes right before the norm layer norm" in notes["conv"]
    assert notes["old"].startswith("frozen: none of its parameters asks for a gradient")
    assert notes["head"] == "tied: a parameter of embed, where it is counted"


def test_roles_are_those_that_the_notes_speak_of():
    roles = {t.layer: t.role for t in Scope.of(Block()).tensors}
    assert roles == {
        "(root)": "container",
        "embed": "embedding",
        "conv": "weights",
        "norm": "norm",
    }


def test_a_layer_without_anything_special_is_judged_and_shown():
    recall = Recall()
    recall.remember(make_frame(0))
    text = str(explain_layer("l0", recall.look_back("l0"), ()))
    assert text.startswith("l0: judged like any weight layer.")
    assert "Gradient over weight of l0: 1 (step 0)." in text


def test_an_unknown_name_is_refused_with_what_was_required():
    with pytest.raises(ValueError, match="needs a finding or the name of a layer, got 'nope'"):
        explain_layer("nope", Recall().look_back("nope"), None)
