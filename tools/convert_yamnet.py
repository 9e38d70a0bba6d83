"""YAMNet's weights from TensorFlow's saved model into a file of safetensors; run by tools/make_yamnet.sh.

    convert_yamnet.py MODEL FILE [--float32] [--golden NPZ]

MODEL is a folder with a saved model that holds TensorFlow's YAMNet. Convolutions and the classifier become float16;
the means, variances and shifts of batch norms, 2 % of the bytes, stay as they are. ``--golden`` also writes what
TensorFlow makes of the ``waveform`` in that npz: with the release's weights (``log_mel``, ``embeddings``, ``scores``)
and with those of FILE (``embeddings_of_file``, ``scores_of_file``).
"""

from __future__ import annotations

import argparse
import re
from typing import Any

import numpy as np
import tensorflow as tf
from safetensors.numpy import save_file

N_WEIGHTS = 3_751_369
PARTS = {"beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the saved model")
    parser.add_argument("file", help="file to write")
    parser.add_argument("--float32", action="store_true", help="keep all weights as they are (15 MB)")
    parser.add_argument("--golden", metavar="NPZ", help="file with a waveform, to which TensorFlow's values are added")
    args = parser.parse_args()
    network = find_yamnet(tf.saved_model.load(args.model))
    variables = {variable.name.removesuffix(":0"): variable for variable in network._yamnet.variables}
    tensors = {}
    for name, variable in variables.items():
        key, value = converted(name, variable.numpy())
        half = value.ndim > 1 and not args.float32
        tensors[key] = np.ascontiguousarray(value, np.float16 if half else np.float32)
    total = sum(value.size for value in tensors.values())
    if total != N_WEIGHTS:
        raise SystemExit(f"error: {args.model}: found {total} weights, expected {N_WEIGHTS}")
    origin = "YAMNet of TensorFlow's models, Apache License 2.0"
    save_file(dict(sorted(tensors.items())), args.file, metadata={"origin": origin})
    if args.golden:
        write_golden(args.golden, network, variables, not args.float32)


def find_yamnet(model: Any) -> Any:
    """The layer of a saved model that is TensorFlow hub's YAMNet."""
    for layer in model.keras_api.layers:
        found = getattr(getattr(layer, "layer", None), "_func", None)
        if hasattr(found, "_yamnet"):
            return found
    raise SystemExit("error: found no YAMNet, expected it in a layer of the saved model")


def converted(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """A variable by the name and in the layout that s5.tagging.yamnet has.

    ``layer2/depthwise_conv/bn/beta`` becomes ``layers.1.depthwise.norm.bias``.
    """
    if dense := re.fullmatch(r"dense/(kernel|bias)", name):
        return (f"classifier.{'weight' if dense[1] == 'kernel' else 'bias'}", value.T)
    match = re.fullmatch(r"layer(\d+)/(?:(depthwise|pointwise)_)?conv/(?:bn/(\w+)|(?:depthwise_)?kernel)", name)
    if not match:
        raise SystemExit(f"error: found a variable {name}, expected YAMNet's")
    layer = ".".join(["layers", str(int(match[1]) - 1), *([match[2]] if match[2] else [])])
    if match[3]:
        return f"{layer}.norm.{PARTS[match[3]]}", value
    # [height, width, in, out], of a depthwise kernel [height, width, channels, 1]
    return f"{layer}.conv.weight", value.transpose(2, 3, 0, 1) if match[2] == "depthwise" else value.transpose(
        3, 2, 0, 1
    )


def write_golden(path: str, network: Any, variables: dict[str, Any], half: bool) -> None:
    """Adds TensorFlow's values to an npz that holds a waveform at 16 kHz."""
    waveform = np.load(path)["waveform"]
    scores, embeddings, log_mel = (value.numpy() for value in network(tf.constant(waveform)))
    for variable in variables.values():
        if half and len(variable.shape) > 1:
            variable.assign(variable.numpy().astype(np.float16).astype(np.float32))
    scores_of_file, embeddings_of_file, _ = (value.numpy() for value in network(tf.constant(waveform)))
    np.savez_compressed(
        path,
        waveform=waveform,
        log_mel=log_mel,
        embeddings=embeddings,
        scores=scores,
        embeddings_of_file=embeddings_of_file,
        scores_of_file=scores_of_file,
    )


if __name__ == "__main__":
    main()
