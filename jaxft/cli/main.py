"""Entry point of `jaxft`: parses the command, runs it, turns errors a user can mend into one line.

Exit codes: 0 finished, 1 failed (a bug, or something that could not be saved), 2 something given does not fit,
75 stopped by a signal with everything saved (EX_TEMPFAIL: start it again), 69 another process of the program was lost
(EX_UNAVAILABLE: start all of them again).
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

from jaxft.cli import data
from jaxft.cli.config import UsageError, split_overrides
from jaxft.errors import JaxftError, SaveError, near
from jaxft.paths import UNREACHABLE

FINISHED, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 75
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_COMMANDS = {
    "train": "fine-tune a network by a config",
    "probe": "fit classifiers to the features of a frozen network: for few labels, or texts alone; without training it",
    "continual": "learn tasks one after the other, and see what becomes of the earlier ones",
    "sweep": "search over keys of a config: trials that are ordinary runs, compared on the validation split",
    "eval": "judge a fine-tuned network on a split of its data, or on other data",
    "predict": "classify pictures with a fine-tuned network",
    "select": "choose which of many pictures without a label to label next, by what a fine-tuned network says of them",
    "inspect": "show what a config would train, its cost and its preprocessing, without training",
    "lr-find": "train for a few steps under a growing learning rate, and suggest one by the losses",
    "bench": "time training, evaluation and input on this machine, and hold them against its peak",
    "explain-step": "show what the compiled training step does: cost, frozen work, memory; without training",
    "compile": "compile a config's training step for TPUs or GPUs that are not here: does it fit, what is sent, the least time",
    "soup": "put the weights of several runs together, or those of a run and what it began with",
    "export": "write a fine-tuned network for timm, torchvision or Hugging Face's transformers",
    "convert": "convert a weight file to safetensors, in jaxft's names or torch's",
    "verify": "compare a network with the one its weights were made for, layer by layer; needs torch in some Python",
    "models": "list the networks and their pretrained weights",
    "data": "look at a data set, pack it, show what a network sees of it",
}


class _Parser(argparse.ArgumentParser):
    """argparse, but an error is a JaxftError: one line, no usage text; and options are written out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "allow_abbrev": False})

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message} (see '{self.prog} --help')")


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="jaxft", description="Fine-tune pretrained vision networks in JAX.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    made = {name: commands.add_parser(name, help=text, description=text) for name, text in _COMMANDS.items()}

    for name in ("train", "sweep", "probe", "continual", "inspect", "lr-find", "explain-step", "compile"):
        made[name].add_argument(
            "--config", required=True, metavar="FILE[:ARG]", help="a recipe; --config.KEY=VALUE overrides any of its keys"
        )
    made["train"].add_argument("--workdir", required=True, help="folder of the run, or gs://BUCKET/FOLDER; made if absent")
    for name in ("train", "compile"):
        made[name].add_argument("--deterministic", action="store_true", help="the same bits in every run, also on GPUs")
    made["train"].add_argument("--coordinator", metavar="HOST:PORT", help="where the first of several processes listens")
    made["train"].add_argument("--processes", type=int, help="how many there are")
    made["train"].add_argument("--process", type=int, help="which this one is, from 0; schedulers say these three themselves")
    made["train"].add_argument("--strict", action="store_true", help="end with an error when a step is compiled twice")
    made["train"].add_argument(
        "--no-test", action="store_true", help="leave the test split closed; the same command without it opens it"
    )

    made["probe"].add_argument("--workdir", required=True, help="for features, figures and the linear probe; made if absent")
    made["probe"].add_argument(
        "--method", metavar="NAME,...", help="of linear, knn, prototypes, tip, tip_f, zero_shot; all but tip_f if not given"
    )
    made["probe"].add_argument(
        "--per-class", type=int, metavar="N", help="learn from N pictures of each class: the same as --config.data.per_class=N"
    )
    made["probe"].add_argument("--text", metavar="FILE.npz", help="class_names and embeddings of texts (docs/few-labels.md)")
    made["probe"].add_argument("--json", metavar="FILE", help="write what was found there too; - is standard output")

    made["sweep"].add_argument("--workdir", required=True, help="folder of the sweep; one that was begun there goes on")
    made["sweep"].add_argument(
        "--search", required=True, action="append", metavar="KEY=VALUES",
        help="a key and its values: log(LOW,HIGH), uniform(LOW,HIGH), int(LOW,HIGH) or choice(A,B,...); once a key",
    )  # fmt: skip
    made["sweep"].add_argument("--trials", type=int, default=20, help="how many, those of before included")
    made["sweep"].add_argument("--method", default="random", help="random, or asha: what is worse than others is stopped early")
    made["sweep"].add_argument("--jobs", type=int, default=1, help="trials at a time")
    made["sweep"].add_argument("--seed", type=int, default=0, help="of the values")
    made["sweep"].add_argument("--reduction-factor", type=int, default=4, help="asha keeps one of so many")

    made["continual"].add_argument("--workdir", required=True, help="folder of the stream; one that was begun there goes on")
    made["continual"].add_argument(
        "--task",
        required=True,
        action="append",
        metavar="SOURCE",
        help="a task's data, as config.data.source; once a task",
    )
    made["continual"].add_argument("--method", default="finetune", help="finetune, l2_sp, ewc, lwf or replay")
    made["continual"].add_argument("--strength", type=float, help="of what keeps the earlier tasks: l2_sp, ewc, lwf")
    made["continual"].add_argument("--memory", type=int, default=20, help="replay: pictures of each earlier class")
    made["continual"].add_argument("--gamma", type=float, default=1.0, help="ewc: what is left of earlier importances")
    made["continual"].add_argument("--examples", type=int, default=500, help="ewc: pictures of a task that say what matters")

    made["inspect"].add_argument("--params", action="store_true", help="print every parameter, not only the stages")

    for name in ("inspect", "explain-step", "compile"):
        made[name].add_argument(
            "--mesh", metavar="LAYOUT", help="data x fsdp x tensor, e.g. 2x4x1: the same as --config.parallel.mesh=LAYOUT"
        )
    for name in ("explain-step", "compile"):
        made[name].add_argument("--phase", metavar="NAME", help="only this phase")
        made[name].add_argument("--json", metavar="FILE", help="write all figures there; - is standard output")
    made["explain-step"].add_argument("--memory-gb", type=float, help="of each device, if not what the devices here have")
    made["explain-step"].add_argument("--run", action="store_true", help="run the step too, and measure its memory")

    made["compile"].add_argument(
        "--target",
        required=True,
        metavar="HARDWARE",
        help="v5e:4x4 (chips of a TPU slice; v4, v5e, v5p, v6e), 2xv5e:4x4 (two slices), h100:8, h100:2x8 (two hosts; a100)",
    )
    made["compile"].add_argument(
        "--remedies", action="store_true", help="where it does not fit, compile what may help, one change after the other"
    )

    made["lr-find"].add_argument("--phase", metavar="NAME", help="whose optimizer and trained part; the first if not given")
    made["lr-find"].add_argument("--steps", type=int, default=100, help="training steps at most")
    made["lr-find"].add_argument("--min-lr", type=float, default=1e-7, help="of the first step")
    made["lr-find"].add_argument("--max-lr", type=float, default=10.0, help="of the last step")
    made["lr-find"].add_argument("--rule", default="valley", help="valley, steepest or minimum; all three are printed")
    made["lr-find"].add_argument("--start", metavar="RUN", help="a run whose weights it begins with, for a later phase")
    made["lr-find"].add_argument(
        "--out",
        action="append",
        default=[],
        metavar="FILE",
        help="a .png for the curve, a .json for all numbers; may be given twice",
    )

    made["eval"].add_argument("--workdir", required=True, help="folder of a run, or one of its checkpoints")
    made["eval"].add_argument("--split", choices=("train", "val", "test"), help="val, or all of --data, if not given")
    made["eval"].add_argument("--data", help="other data than the run's own, as config.data.source")
    made["eval"].add_argument("--batch-size", type=int, default=64)
    made["eval"].add_argument("--json", action="store_true", help="print JSON")

    made["predict"].add_argument("--workdir", required=True, help="folder of a run, or one of its checkpoints")
    made["predict"].add_argument("paths", nargs="+", help="pictures, or folders of pictures")
    made["predict"].add_argument("--format", default="table", choices=("table", "json", "csv"))
    made["predict"].add_argument("--output", help="a file; standard output if not given")
    made["predict"].add_argument("--top", type=int, default=1, help="classes to name for each picture")
    made["predict"].add_argument("--batch-size", type=int, default=64)

    made["select"].add_argument("--workdir", required=True, help="folder of a run")
    made["select"].add_argument("paths", nargs="+", help="pictures without a label, or folders of them")
    made["select"].add_argument("--count", type=int, required=True, help="how many to choose")
    made["select"].add_argument(
        "--method", default="badge", help="entropy, margin, least_confidence; badge (unsure and unlike each other); coreset"
    )
    made["select"].add_argument("--output", help="a CSV file; standard output if not given")
    made["select"].add_argument("--seed", type=int, default=0, help="of badge, which draws")
    made["select"].add_argument("--batch-size", type=int, default=64)

    for name in ("eval", "predict"):
        made[name].add_argument(
            "--tta", default="", metavar="VIEWS", help="the mean over views of each picture: flip, crops, or flip,crops"
        )

    made["bench"].add_argument("--model", required=True, help="a name of `jaxft models`")
    made["bench"].add_argument(
        "--part",
        default="train,head,eval,input",
        help="train, eval, input (the pipeline alone), or what is trained: head, from:STAGE, a stage; "
        "a training with +data behind it (train+data) reads its data as a run does, with +augment it augments its images",
    )
    made["bench"].add_argument("--processes", type=int, default=0, help="as config.input.processes")
    made["bench"].add_argument("--augment", default="crop_flip", metavar="LIST", help="as config.input.augment")
    made["bench"].add_argument("--batch", default="8", metavar="N,...", help="images a step, over all devices")
    made["bench"].add_argument("--size", type=int, help="pixels; the network's own if not given")
    made["bench"].add_argument("--dtype", default="float32", help="float32 or bfloat16")
    made["bench"].add_argument("--devices", metavar="N,...", help="how many of the devices present; all if not given")
    made["bench"].add_argument("--per-device", action="store_true", help="--batch is of each device (weak scaling)")
    made["bench"].add_argument("--optimizer", default="sgd", help="sgd, adamw, lion, ...: see docs/fine-tuning.md")
    made["bench"].add_argument("--accum-steps", type=int, default=1, help="microbatches a training step")
    made["bench"].add_argument("--data", help="as config.data.source; drawn JPEGs if not given")
    made["bench"].add_argument("--rounds", type=int, default=5, help="how often each is timed, in turns")
    made["bench"].add_argument("--seconds", type=float, default=2.0, help="how long a round lasts at least")
    made["bench"].add_argument("--json", metavar="FILE", help="also write everything measured as JSON")

    made["soup"].add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or one of its checkpoints")
    made["soup"].add_argument("--out", metavar="FOLDER", help="a new workdir, for eval, predict and export")
    made["soup"].add_argument("--greedy", action="store_true", help="add a run only where the validation figure does not fall")
    made["soup"].add_argument(
        "--wise",
        metavar="ALPHA",
        help="between what one run began with (0) and the run (1), e.g. 0.5; sweep: try 0, 0.1, ..., 1, and write the best",
    )
    made["soup"].add_argument("--start", metavar="RUN", help="with --wise: a run to begin with, not the pretrained weights")
    made["soup"].add_argument(
        "--update-bn",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compute BatchNorm statistics anew over the training split, or average them; anew where one trained, if not given",
    )
    made["soup"].add_argument("--json", metavar="FILE", help="write all figures there; - is standard output")

    made["export"].add_argument(
        "out", metavar="OUT", help="a .safetensors file, a folder for weights and configs, or .weights.h5"
    )
    made["export"].add_argument("--workdir", required=True, help="folder of a run, or one of its checkpoints")
    made["export"].add_argument(
        "--to",
        default="timm",
        help="timm, torchvision, transformers, keras3 or jaxft; what the run changed alone: adapter, peft",
    )
    made["export"].add_argument("--step", type=int, default=None, help="which checkpoint; the best if not given")
    made["export"].add_argument("--overwrite", action="store_true")

    made["convert"].add_argument("src", metavar="SRC", help=".pth, .safetensors, .h5, .npz, or a URL, package: or hf: source")
    made["convert"].add_argument(
        "dst", metavar="DST", help="the .safetensors file to write, or with --to=keras3 the .weights.h5"
    )
    made["convert"].add_argument("--model", help="the architecture; without it names stay as they are")
    made["convert"].add_argument("--to", default="jaxft", help="whose names to write: jaxft, torchvision, timm, ...")
    made["convert"].add_argument("--overwrite", action="store_true")

    made["verify"].add_argument("network", help="a name of `jaxft models`, and after a dot the tag of its weights")
    made["verify"].add_argument("--weights", default="", help="a tag or a file; without it the name's tag, else random ones")
    made["verify"].add_argument("--seeded", action="store_true", help="random weights, whatever tag the name has")
    made["verify"].add_argument("--against", default=None, help="torchvision, timm or transformers")
    made["verify"].add_argument("--pictures", nargs="*", default=(), metavar="FILE", help="prepared and classified by both")
    made["verify"].add_argument("--size", type=int, default=None, help="pixels; 64 for random weights")
    made["verify"].add_argument("--batch", type=int, default=2, help="images")
    made["verify"].add_argument("--seed", type=int, default=0, help="of random weights and images")
    made["verify"].add_argument("--gain", type=float, default=1.0, help="of random kernels; 0.7 keeps rounding small")
    made["verify"].add_argument("--dtype", default="float32", help="of inference; float64 tells a difference from rounding")
    made["verify"].add_argument("--no-train", action="store_true", help="leave out the batch in train mode")
    made["verify"].add_argument("--torch-python", default=None, metavar="PYTHON", help="a Python that has torch; or this one")
    made["verify"].add_argument("--keep", default=None, metavar="FILE", help="keep what the original gave, for --reference")
    made["verify"].add_argument("--reference", default=None, metavar="FILE", help="compare with what was kept; no torch")
    made["verify"].add_argument("--json", nargs="?", const="-", default="", help="the receipt as JSON, into a file if named")

    data.add_commands(made["data"], _Parser)

    made["models"].add_argument("pattern", nargs="?", default="*", help="a glob, e.g. 'resnet*'")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. One process of several that fails does not return: the others wait for it."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except JaxftError as error:
        return _ended(USAGE, _one_line(error))
    except SaveError as error:
        return _ended(FAILED, _one_line(error))
    except OSError as error:
        if error.errno == UNREACHABLE:
            return _ended(FAILED, f"{error.strerror}; what was saved before is there still: start it again")
        if error.errno not in _FULL:
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _ended(FAILED, f"nothing more can be written: {error.strerror}{where}; make room and start it again")
    except KeyboardInterrupt:
        return _ended(INTERRUPTED, "stopped; the newest checkpoint is whole: the same command goes on from there")


def _run(arguments: list[str]) -> int:
    plain, overrides = split_overrides(arguments)
    parser = make_parser()
    if plain and not plain[0].startswith("-") and plain[0] not in _COMMANDS:
        raise UsageError(f"jaxft has no command '{plain[0]}'{near(plain[0], _COMMANDS)}")
    options = parser.parse_args(plain)
    if options.command is None:
        parser.print_help()
        return USAGE
    if overrides and "config" not in options:
        raise UsageError(f"jaxft {options.command} takes no config: {overrides[0]}")
    # Commands are imported only when asked for: `jaxft --help` needs no JAX.
    from jaxft.cli.commands import COMMANDS

    return COMMANDS[options.command](options, overrides)


def _ended(code: int, line: str) -> int:
    parallel = sys.modules.get("jaxft.parallel")
    several = parallel is not None and parallel.are_watched()
    process = f"process {parallel.process_index()}: " if several and parallel else ""
    print(f"jaxft: {process}{line}", file=sys.stderr)
    if several and parallel:
        parallel.leave(code, line)
    return code


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def entry() -> None:
    """The console script. Losses and optimizers named "module:function" are looked for in the current folder too."""
    sys.path.append(os.getcwd())
    code = FINISHED
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, `head` say, wanted no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
