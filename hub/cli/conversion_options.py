"""What ``muster model convert`` can be told: each option once, with what it says for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from converters.target import CalibrationMethod
from converters.targets import TARGETS
from fleet.drift.inputs import LAYOUTS
from fleet.protocol.manifest import Task

SourceArgument = Annotated[
    Path, typer.Argument(help="A model: .onnx, .tflite, .pt2, .pkl, .joblib, or an MLflow folder.")
]
FolderOption = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Folder to write; must not exist, or be empty.")
]
TargetsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TARGETS",
        help=f"What to build, comma-separated or repeated: {', '.join(TARGETS)}; without it, all.",
    ),
]

# By what data ---------------------------------------------------------------

CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Dataset file to calibrate with; half of it judges if --held-out is missing."
    ),
]
HeldOutOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Dataset file to judge by, which training did not see."),
]

# How it is quantized --------------------------------------------------------

CalibrationMethodOption = Annotated[
    CalibrationMethod, typer.Option(help="How ranges of activations are found for ONNX int8.")
]
KeepFloatOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="auto|NODES",
        help="auto, or names of nodes that stay float in int8, comma-separated or repeated;"
        " --sensitivity shows them.",
    ),
]
SensitivityOption = Annotated[
    bool, typer.Option("--sensitivity", help="Measure what each layer loses in int8.")
]
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of every random choice.")]

# What passes ----------------------------------------------------------------

MaximumDropOption = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Greatest loss of the metric against the source.")
]
MinimumOption = Annotated[
    float | None,
    typer.Option(max=1.0, help="Least value of the metric, of the source and every variant."),
]

# What the model is ----------------------------------------------------------

TaskOption = Annotated[Task | None, typer.Option(help="What the model is for, where that cannot be told.")]
ClassesOption = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="NAME", help="Name of a class; repeat, in their order."),
]
SampleShapeOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZES",
        help="Shape of a sample as devices send it, such as 8,8, for a scikit-learn model of flat rows.",
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option(
        metavar="LAYOUT",
        help=f"What the axes of the input are, for its drift profile: {', '.join(LAYOUTS)}.",
    ),
]
EmbeddingOption = Annotated[
    str,
    typer.Option(
        metavar="TENSOR[:K]",
        help="A layer to watch for drift, as K components: its tensor, or auto, what the last product takes.",
    ),
]
TrustPickleOption = Annotated[
    bool, typer.Option("--trust-pickle", help="Read a pickle or .pt2, which can run any program as you.")
]

# What is written ------------------------------------------------------------

NameOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the model in the bundle; by default after the source."),
]
PageOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the report as one HTML page too.")
]
