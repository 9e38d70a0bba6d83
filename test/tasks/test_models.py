"""Figures of a batch that validation reports."""

import pytest
import torch

from s5.metrics import capi_sdri
from s5.separation.losses import ca_pi_sdr
from s5.tasks.models import SeparationModel, TaggingModel

SILENCE = 2


class Fixed(torch.nn.Module):
    """A network whose output is given."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, *inputs):
        return self.output


def test_validation_sdri_is_capi_sdri_with_oracle_labels_over_mixtures_that_have_a_source():
    torch.manual_seed(0)
    label_index = torch.tensor([[0, 0, 1], [1, SILENCE, SILENCE], [SILENCE] * 3])
    dry = torch.randn(3, 3, 400) * (label_index != SILENCE)[..., None]
    mixture = torch.stack([dry.sum(1) + 0.5 * torch.randn(3, 400)] * 4, 1)
    estimate = dry[:, [1, 0, 2]] + 0.3 * torch.randn(3, 3, 400)
    model = SeparationModel(Fixed(estimate), 2, ca_pi_sdr).eval()
    loss, stats, weight = model(mixture, dry, label_index)
    expected = []
    for b, n in ((0, 3), (1, 1)):
        names = [str(i.item()) for i in label_index[b, :n]]
        expected.append(capi_sdri(names, estimate[b, :n].numpy(), names, dry[b, :n].numpy(), mixture[b, 0].numpy()))
    assert weight == 2
    # mixture 1's only source sits in slot 0 and its estimate in slot 1: no permutation may fetch it from a silent slot
    assert stats["sdri"].item() == pytest.approx(sum(expected) / 2, abs=0.05)
    assert torch.equal(loss.detach(), stats["loss"])


def test_a_batch_without_sources_weighs_nothing():
    model = SeparationModel(Fixed(torch.zeros(2, 3, 400)), 2, ca_pi_sdr).eval()
    _, stats, weight = model(torch.randn(2, 4, 400), torch.zeros(2, 3, 400), torch.full((2, 3), SILENCE))
    assert weight == 0 and stats["sdri"] == 0


def test_accuracies_count_repeated_labels():
    truth = torch.tensor([[0, 0, 1], [SILENCE, SILENCE, SILENCE], [0, 1, SILENCE]])
    predicted = torch.tensor([[1, 0, SILENCE], [SILENCE, SILENCE, SILENCE], [1, 0, SILENCE]])
    logits = 10.0 * torch.nn.functional.one_hot(predicted, 3)
    _, stats, _ = TaggingModel(Fixed(logits), 2)(torch.randn(3, 4, 10), truth)
    assert stats["acc3"].item() == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert stats["accuracy_mix"].item() == pytest.approx(2 / 3)
