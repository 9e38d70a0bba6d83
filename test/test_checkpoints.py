"""Loading weights: what is missing, odd or dangerous is refused in one line."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from s5.checkpoints import load_official, read_tensors
from s5.utils.errors import InputError


def test_lightning_prefix_is_removed_and_unknown_keys_are_reported(tmp_path, caplog):
    layer = nn.Linear(2, 1)
    state = {"model.weight": torch.ones(1, 2), "model.bias": torch.zeros(1), "model.extra": torch.zeros(3)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    load_official(layer, tmp_path / "a.ckpt")
    assert layer.weight.tolist() == [[1.0, 1.0]]
    assert "extra" in caplog.text


def test_missing_key_and_wrong_shape_are_refused():
    with pytest.raises(InputError, match="no key bias"):
        load_official(nn.Linear(2, 1), {"weight": torch.ones(1, 2)})
    with pytest.raises(InputError, match=r"key weight: found \[1, 3\], expected \[1, 2\]"):
        load_official(nn.Linear(2, 1), {"weight": torch.ones(1, 3), "bias": torch.zeros(1)})


def test_another_model_is_told_by_its_keys():
    other = {f"conv.{i}": torch.ones(1) for i in range(5)}
    with pytest.raises(InputError) as refused:
        load_official(nn.Linear(2, 1), other)
    found = "no key weight, bias but conv.0, conv.1, conv.2 (5 in all), expected the keys of Linear"
    assert str(refused.value) == f"checkpoint: found {found}"


@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_numbers_of_any_numpy_beside_the_weights_do_no_harm(tmp_path, module):
    torch.save({"state_dict": {"weight": torch.ones(2)}, "best": np.float64(0.5)}, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "a.pt", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", module))
    assert read_tensors(tmp_path / "a.pt")["weight"].tolist() == [1.0, 1.0]


def test_what_a_process_allows_stays_allowed(tmp_path):
    """A training reads what it starts from, and then its own checkpoint with numbers of numpy in it."""
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.pt")
    with torch.serialization.safe_globals([np.dtype, type(np.dtype("float64"))]):
        read_tensors(tmp_path / "a.pt")
        assert {np.dtype, type(np.dtype("float64"))} <= set(torch.serialization.get_safe_globals())


class _Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_file_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"weight": _Evil()}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(_Evil()))
    for name in ("evil.pth", "evil.pkl"):
        with pytest.raises(InputError, match="unreadable checkpoint"):
            read_tensors(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_tensors(tmp_path / "none.pth")
    torch.save({"weight": torch.ones(1000)}, tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.pth"):
        read_tensors(tmp_path / "cut.pth")


def test_a_changed_byte_is_found_wherever_there_is_a_checksum(tmp_path):
    torch.save({"weight": torch.ones(1000)}, tmp_path / "a.pth")
    whole = bytearray((tmp_path / "a.pth").read_bytes())
    whole[bytes(whole).index(b"\x00\x00\x80\x3f" * 10) + 22] ^= 1
    (tmp_path / "a.pth").write_bytes(whole)
    assert torch.load(tmp_path / "a.pth")["weight"].unique().numel() == 2  # torch takes it
    with pytest.raises(InputError, match=r"a\.pth: found a damaged file \(Bad CRC-32"):
        read_tensors(tmp_path / "a.pth")
