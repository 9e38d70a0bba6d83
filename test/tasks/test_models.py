"""Figures of a batch that validation reports."""

import pytest
import torch

from s5.metrics import capi_sdri, pi_sdri
from s5.separation import ResUNetK
from s5.separation.losses import ca_pi_sdr, ca_sdr, pi_sdr, snr
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


@pytest.mark.parametrize("loss", [ca_pi_sdr, ca_sdr, pi_sdr, snr])
def test_validation_figures_do_not_depend_on_the_loss(loss):
    """PI-SDRi is the metric's, for any loss; SDRi pairs within classes, even where a loss pairs at random or across."""
    torch.manual_seed(0)
    label_index = torch.tensor([[0, 1, 1], [0, 1, SILENCE]])
    dry = torch.randn(2, 3, 400) * (label_index != SILENCE)[..., None]
    mixture = torch.stack([dry.sum(1) + 0.5 * torch.randn(2, 400)] * 4, 1)
    estimate = (dry[:, [1, 0, 2]] + 0.3 * torch.randn(2, 3, 400)) * (label_index != SILENCE)[..., None]
    _, stats, _ = SeparationModel(Fixed(estimate), 2, loss).eval()(mixture, dry, label_index)
    rules = {
        "sdri": lambda b, n: capi_sdri(
            names := [str(i.item()) for i in label_index[b, :n]],
            estimate[b, :n].numpy(),
            names,
            dry[b, :n].numpy(),
            mixture[b, 0].numpy(),
        ),
        "pi_sdri": lambda b, n: pi_sdri(estimate[b, :n].numpy(), dry[b, :n].numpy(), mixture[b, 0].numpy()),
    }
    for name, rule in rules.items():
        assert stats[name].item() == pytest.approx((rule(0, 3) + rule(1, 2)) / 2, abs=1e-3)
    assert stats["pi_sdri"] > stats["sdri"] + 1


def test_one_query_trains_with_one_random_active_source():
    """The network sees [B, 1, C], its target is that source, and over many steps every active one has its turn."""
    seen = []

    class Network(torch.nn.Module):
        def forward(self, mixture, label_vector):
            assert label_vector.shape == (2, 1, 3)
            seen.append(label_vector[:, 0].argmax(-1).tolist())
            return 0.9 * mixture[torch.arange(2), label_vector[:, 0].argmax(-1)][:, None]  # channel c holds class c

    torch.manual_seed(0)
    label_index = torch.tensor([[2, 0, 3], [1, 3, 3]])
    dry = torch.randn(2, 3, 100) * (label_index != 3)[..., None]
    mixture = torch.zeros(2, 3, 100)
    mixture[0, 2], mixture[0, 0], mixture[1, 1] = dry[0, 0], dry[0, 1], dry[1, 0]
    model = SeparationModel(Network(), 3, snr, one_query=True).train()
    for _ in range(20):
        loss, _, weight = model(mixture, dry, label_index)
        assert loss.item() == pytest.approx(-20, abs=0.01) and weight == 2
    assert {first for first, _ in seen} == {0, 2} and {second for _, second in seen} == {1}
    silent, _, _ = model(mixture, torch.zeros_like(dry), torch.full((2, 3), 3))
    assert silent == 0


def test_single_query_network_is_validated_with_all_queries():
    network = ResUNetK(2, 3, n_fft=64, hop_length=32, widths=[4, 6], condition_dim=8, single_query=True)
    model = SeparationModel(network, 2, snr, one_query=True)
    torch.manual_seed(0)
    label_index = torch.tensor([[0, 1, SILENCE], [1, 1, 0]])
    dry = torch.randn(2, 3, 640) * (label_index != SILENCE)[..., None]
    mixture = torch.randn(2, 4, 640)
    loss, _, _ = model.train()(mixture, dry, label_index)
    loss.backward()
    assert all(p.grad is not None for p in network.parameters())
    with torch.no_grad():
        _, stats, weight = model.eval()(mixture, dry, label_index)
    assert weight == 2 and all(torch.isfinite(value).all() for value in stats.values())


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
