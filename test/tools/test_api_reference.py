"""docs/api.md is what tools/api_reference.py writes of the docstrings."""

import ast
import importlib.util
import subprocess
import sys

import pytest

from s5.utils.config import ROOT

SCRIPT = ROOT / "tools/api_reference.py"


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("api_reference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}run: python tools/api_reference.py"


def test_every_public_loss_and_metric_is_there_with_its_example(reference):
    text = reference.page()
    for name in ("ca_pi_sdr", "ca_sdr", "pi_sdr", "snr", "pit_cross_entropy", "capi_sdri", "ca_sdri", "S5System"):
        assert f"\n### {name}\n" in text
    assert "```pycon\n>>> ref = np.eye(2, 8)\n" in text.split("\n### capi_sdri\n")[1].split("\n### ")[0]


def test_a_class_with_its_attributes_methods_and_sections(reference):
    source = '''
class Box:
    """Holds :class:`Thing`.

    Args:
        size: side
            in metres.
        low, high: ends.
        **more: others.

    Returns:
        nothing
        at all.

    Example:
        >>> Box(1)
    """

    size: int = 1
    """Side in ``m``."""
    full: bool = False

    def open(self, wide: bool = True) -> str:
        """Opens."""

    def _hidden(self) -> None:
        """Not shown."""
'''
    (node,) = ast.parse(source).body
    assert "\n".join(part for part in reference.entry(node, "Box") if part) == "\n".join(
        [
            "### Box",
            "Holds `Thing`.\n\n**Args**\n\n* `size`: side in metres.\n* `low, high`: ends.\n* `**more`: others.\n\n"
            "**Returns**\n",
            "nothing at all.\n\n**Example**\n\n```pycon\n>>> Box(1)\n```",
            "* `size: int = 1`: Side in `m`.\n* `full: bool = False`",
            "#### Box.open",
            "`Box.open(wide: bool=True) -> str`",
            "Opens.",
        ]
    )
