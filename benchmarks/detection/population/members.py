"""One random healthy run: what is drawn for it, and its training.

In: a number. Out: a `Case` without a fault. The number decides everything, also the first weights
and the batches, whatever the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from benchmarks.detection.case import Case, Training
from benchmarks.detection.population import adversaries, batches, descent
from benchmarks.detection.population.dice import Dice
from benchmarks.detection.population.families import COSTLY, FAMILIES, Arguments
from benchmarks.detection.population.rule import LEVEL, Skill
from benchmarks.detection.population.tasks import task

__all__ = ["Recipe", "drawn", "member"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that was drawn for one run.

    Attributes:
        number: Decides this recipe and what is random in the training.
        family: Architecture.
        task: Name of what is learnt.
        model: Arguments of the architecture.
        steps: Optimizer steps.
        diet: What it is fed.
        descent: How it goes downhill.
        bfloat16: Whether the forward pass runs under autocast.
        is_frozen: Whether the first layer stays as it begins.
        is_zero: Whether the head begins at zero.
        spread: Deviation of the inputs.
        shift: Mean of the inputs.
    """

    number: int
    family: str
    task: str
    model: Arguments
    steps: int
    diet: batches.Diet
    descent: descent.Descent
    bfloat16: bool
    is_frozen: bool
    is_zero: bool
    spread: float
    shift: float


def member(number: int) -> Case:
    """Return a healthy run; its score is its skill, and a score below its level unmakes it.

    Args:
        number: Any number from zero on.
    """
    recipe = drawn(number)
    return Case(
        name=f"population-{number}",
        family=recipe.family,
        build=partial(_training, recipe),
        steps=recipe.steps,
        level=LEVEL,
        why=f"drawn at random: {recipe}",
    )


def drawn(number: int) -> Recipe | adversaries.Duel:
    """Draw what decides a run."""
    dice = Dice(number)
    if dice.happens(0.03):
        return adversaries.drawn(dice, number)
    family = dice.choices(list(FAMILIES), [family.share for family in FAMILIES.values()])[0]
    name = dice.choice(FAMILIES[family].tasks)
    model = FAMILIES[family].arguments(dice, name)
    is_costly, is_slow = family in COSTLY, family == "recurrent"
    steps = dice.randint(*((150, 200) if is_costly and not is_slow else (210, 280)))
    diet = batches.drawn(dice, name, steps, is_costly=is_costly)
    return Recipe(
        number=number,
        family=family,
        task=name,
        model=model,
        steps=steps,
        diet=diet,
        descent=descent.drawn(dice, family, name, model, diet.batch_size),
        bfloat16=family in {"mlp", "cnn", "linear"} and dice.happens(0.1),
        is_frozen=family in {"mlp", "cnn"} and dice.happens(0.08),
        is_zero=family != "autoencoder" and dice.happens(0.1),
        spread=dice.log_uniform(0.5, 2.0) if dice.happens(0.3) else 1.0,
        shift=dice.uniform(-0.3, 0.3) if dice.happens(0.3) else 0.0,
    )


def _training(recipe: Recipe | adversaries.Duel) -> Training:
    torch.manual_seed(recipe.number)
    if isinstance(recipe, adversaries.Duel):
        return adversaries.made(recipe)
    learnt = task(recipe.task, recipe.number)
    if learnt.form != "tokens":
        learnt = replace(learnt, inputs=learnt.inputs * recipe.spread + recipe.shift)
    model = FAMILIES[recipe.family].make(learnt, recipe.model)
    _prepare(model, recipe)
    optimizer = descent.made(recipe.descent, model)
    clip_norm, scale = recipe.descent.clip_norm, recipe.descent.loss_scale
    return Training(
        model=model,
        optimizers=[optimizer],
        schedulers=[descent.scheduled(recipe.descent, optimizer, recipe.steps)],
        batch=batches.made(recipe.diet, learnt),
        loss=lambda batch, _: learnt.loss(model(batch[0]), batch[1]) * scale,
        score=Skill(model, lambda: learnt.quality(model), chance=learnt.chance, good=learnt.good),
        clip_norm=None if clip_norm is None else clip_norm * scale,
        accumulate=recipe.diet.accumulate,
        short_every=recipe.diet.short_every,
        autocast=torch.bfloat16 if recipe.bfloat16 else None,
    )


def _prepare(model: nn.Module, recipe: Recipe) -> None:
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if recipe.is_frozen:
        layers[0].requires_grad_(requires_grad=False)
    if recipe.is_zero:
        for parameter in layers[-1].parameters():
            nn.init.zeros_(parameter)
