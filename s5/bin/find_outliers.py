"""Finds training events that may not belong to their class, and makes a page to listen to them."""

import logging

from s5.bin.command import Parser, at_least_zero, count, number, positive, run
from s5.utils.errors import InputError


def main(argv: list[str] | None = None) -> None:
    """Entry point of ``python -m s5.bin.find_outliers``; run from the recipe folder."""
    parser = Parser(
        "Finds events that differ from the others of their class. Writes OUT/candidates.tsv, a list for the key drop "
        "of a refinement that you should confirm, and OUT/candidates.html, a page to listen, tick and save."
    )
    add = parser.add_argument
    add("--events", default="data/dev_set/sound_event/train", metavar="DIR", help="folder of <Label>/.../<file>")
    add("--out", default="data/refine", metavar="DIR", help="folder to write")
    add("--labels", default="conf/labels.txt", metavar="FILE", help="labels to examine, one a line")
    add("--features", choices=("spectral", "tagger"), default="spectral", help="features to compare events by")
    add("--experiment", metavar="DIR", help="trained tagger for --features tagger, e.g. exp/m2d_fc_1c")
    add("--weights", metavar="FILE", help="pretrained M2D weights for --features tagger, instead of --experiment")
    add("--device", default="cpu", help="torch device of the tagger")
    add("--threshold", type=number, default=3.5, help="smallest robust z-score of a proposed event")
    add("--most", type=count, default=50, help="largest number of proposals of a class")
    add("--min_duration", type=at_least_zero, default=0, metavar="S", help="smallest duration of an event in seconds")
    add("--seconds", type=positive, default=5, metavar="S", help="seconds to play of each sound")
    args = parser.parse_args(argv)
    if args.features == "tagger" and (args.experiment is None) == (args.weights is None):
        raise InputError("--features tagger", "both or neither", "--experiment or --weights")

    from s5.challenge.corpus.outliers import Embed, find_events, spectral_statistics
    from s5.labels import LabelSet
    from s5.report.candidates import encoder_embedding, propose

    labels = LabelSet.load(args.labels)
    embed: Embed = spectral_statistics
    if args.features == "tagger":
        embed = encoder_embedding(args.experiment, args.weights, args.device)
    events = find_events(args.events, labels, args.min_duration)
    found = propose(events, embed, args.out, args.threshold, args.most, args.seconds, args.events)
    logging.info("%d of %d events proposed: %s/candidates.html", found, sum(map(len, events.values())), args.out)


if __name__ == "__main__":
    run(main)
