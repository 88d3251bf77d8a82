"""One callback is at home in both distributions of Lightning."""

from __future__ import annotations

import importlib.machinery

import lightning.pytorch
import pytest
import pytorch_lightning

from lightning_gradguard import roots


def test_base_is_a_callback_of_both_distributions() -> None:
    base = roots.callback_base()
    assert issubclass(base, pytorch_lightning.Callback)
    assert issubclass(base, lightning.pytorch.Callback)


def test_one_distribution_is_enough(monkeypatch) -> None:
    only = importlib.machinery.ModuleSpec("pytorch_lightning", None)
    monkeypatch.setattr(
        roots, "find_spec", lambda name: only if name == "pytorch_lightning" else None
    )
    base = roots.callback_base()
    assert issubclass(base, pytorch_lightning.Callback)
    assert not issubclass(base, lightning.pytorch.Callback)


def test_the_same_class_under_two_names_is_one_base(monkeypatch) -> None:
    monkeypatch.setattr(lightning.pytorch, "Callback", pytorch_lightning.Callback)
    assert roots.callback_base().__bases__ == (pytorch_lightning.Callback,)


def test_without_lightning_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(roots, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="pip install pytorch-lightning"):
        roots.callback_base()


def test_a_broken_distribution_does_not_matter_beside_a_working_one(monkeypatch) -> None:
    def import_module(name):
        if name == "lightning.pytorch":
            msg = "half installed"
            raise ImportError(msg)
        return pytorch_lightning

    monkeypatch.setattr(roots, "import_module", import_module)
    assert roots.callback_base().__bases__ == (pytorch_lightning.Callback,)


def test_nothing_but_broken_distributions_say_what_is_broken(monkeypatch) -> None:
    def import_module(_name):
        msg = "half installed"
        raise ImportError(msg)

    monkeypatch.setattr(roots, "import_module", import_module)
    with pytest.raises(ImportError, match="half installed"):
        roots.callback_base()
