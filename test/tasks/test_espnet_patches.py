"""ESPnet as installed still needs each change of s5.tasks.espnet_patches. Where a test fails, delete the change."""

import argparse
import inspect
import os
import subprocess
import sys

import pytest
import torch
import yaml
from espnet2.tasks import abs_task
from espnet2.train.distributed_utils import DistributedOption
from espnet2.utils import nested_dict_action

from s5.tasks import base, espnet_patches


def loaded(code, module):
    """Whether ``module`` is loaded after the code has run in a process of its own."""
    test = f"{code}\nimport sys; sys.exit({module!r} in sys.modules and sys.modules[{module!r}] is not None)"
    return bool(subprocess.run([sys.executable, "-c", test], capture_output=True).returncode)


@pytest.mark.slow
def test_adapters_import_transformers_unless_they_are_kept_out():
    assert loaded("import espnet2.layers.create_adapter_fn", "transformers")
    kept_out = (
        "from s5.tasks.espnet_patches import import_without_transformers as f; f(); import espnet2.tasks.abs_task"
    )
    assert not loaded(kept_out, "transformers")


def test_espnet_takes_a_number_with_an_exponent_for_a_text_unless_it_is_told_not_to():
    original = yaml.load("2e-3", Loader=yaml.Loader)
    parser = argparse.ArgumentParser()
    parser.add_argument("--optim_conf", action=nested_dict_action.NestedDictAction, default={})
    given = parser.parse_args(["--optim_conf", "lr=2e-3", "--optim_conf", "betas=[0.9, 1e-1]"])
    assert (original, given.optim_conf) == ("2e-3", {"lr": 0.002, "betas": [0.9, 0.1]})


class Harmful:
    def __reduce__(self):
        return print, ("made by the checkpoint",)


@pytest.mark.parametrize("patched", [False, True])
def test_espnet_runs_the_code_of_a_crafted_file_unless_it_is_told_not_to(tmp_path, patched):
    torch.save({"a": Harmful()}, tmp_path / "crafted.pth")
    code = (
        "import sys, torch\n"
        "from espnet2.torch_utils.load_pretrained_model import load_pretrained_model\n"
        + ("from s5.tasks.espnet_patches import load_only_weights; load_only_weights()\n" if patched else "")
        + "load_pretrained_model(sys.argv[1], torch.nn.Linear(1, 1), ignore_init_mismatch=True)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "crafted.pth"]
    environment = {name: value for name, value in os.environ.items() if name != "TORCH_FORCE_WEIGHTS_ONLY_LOAD"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ("made by the checkpoint" in process.stdout) == (not patched)
    assert not patched or "Weights only load failed" in process.stderr


def test_espnet_waits_for_its_processes_without_a_limit_of_ours():
    assert "timeout" not in inspect.getsource(DistributedOption.init_torch_distributed)
    assert abs_task.DistributedOption(dist_timeout=3.0).dist_timeout == 3.0
    assert base.S5Task.trainer is not None  # importing the tasks is what changes ESPnet


def test_espnet_main_resumes_and_logs_into_wandb_in_its_own_way():
    source = inspect.getsource(abs_task.AbsTask.main_worker)
    assert "wandb.config.update(args)" in source  # refuses a changed option
    assert "except wandb.errors.UsageError" in source  # goes on without W&B
    assert isinstance(abs_task.wandb, espnet_patches.WandbOfMain)
