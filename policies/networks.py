"""The network whose weights a train carries, so that others can load the result: a name from a closed list and plain arguments.

Describes; nothing of it is code, and nobody runs anything for it: whoever loads a result calls the named class of a library they
installed themselves. Texts are kept to letters and digits, since MONAI's configuration files take other characters for expressions.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from policies.documents import Sequence, StrictModel, Text

NETWORKS: Final = frozenset(
    {
        *(
            f"monai.networks.nets.{name}"
            for name in (
                "AttentionUnet", "BasicUNet", "Classifier", "DenseNet", "DenseNet121", "DenseNet169", "DenseNet201",
                "DenseNet264", "DynUNet", "EfficientNetBN", "HighResNet", "Regressor", "ResNet", "SEResNet50", "SEResNet101",
                "SegResNet", "SwinUNETR", "UNet", "UNETR", "ViT", "VNet",
            )
        ),
        *(
            f"torchvision.models.{name}"
            for name in ("convnext_tiny", "densenet121", "efficientnet_b0", "resnet18", "resnet34", "resnet50", "vit_b_16")
        ),
    }
)  # fmt: skip
"""Their constructors build layers and do nothing else; weights are fetched by none of them with the arguments permitted here."""

FETCHES: Final = frozenset({"pretrained", "weights", "weights_backbone", "pretrain_path", "progress"})
"""Arguments by which a constructor would fetch something."""

ArgumentName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
ArgumentText = Annotated[str, Field(pattern=r"^[A-Za-z0-9_. -]{0,100}$")]
Scalar = bool | int | float | ArgumentText | None
Argument = Scalar | Annotated[Sequence[Scalar | Sequence[Scalar]], Field(max_length=64)]


class NetworkData(StrictModel):
    """What goes into a network or comes out of it."""

    channels: Sequence[Text] = Field(
        min_length=1, max_length=256, description="What each channel is, in order."
    )
    meaning: Literal["image", "logits", "probabilities", "segmentation", "regression"]
    spatial_shape: Sequence[Annotated[int, Field(ge=0, le=1 << 16)]] = Field(
        default=(), max_length=3, description="Pixels along each side; 0 is any."
    )
    value_range: Sequence[Annotated[float, Field(allow_inf_nan=False)]] = Field(
        default=(), description="The least and the largest value."
    )
    preparation: Text | None = Field(default=None, description="How an image is prepared, in words.")

    @field_validator("value_range")
    @classmethod
    def _two(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if value and (len(value) != 2 or value[0] >= value[1]):
            raise ValueError("value_range is the least and the largest value")
        return value


class Network(StrictModel):
    """A network by name, with what its constructor is given."""

    name: str
    arguments: Annotated[dict[ArgumentName, Argument], Field(max_length=64)] = Field(default_factory=dict)
    input: NetworkData | None = None
    output: NetworkData | None = None

    @field_validator("name")
    @classmethod
    def _listed(cls, value: str) -> str:
        if value not in NETWORKS:
            raise ValueError("is not one of the networks that can be named (policies/networks.py)")
        return value

    @field_validator("arguments")
    @classmethod
    def _fetch_nothing(cls, value: dict[str, Argument]) -> dict[str, Argument]:
        if fetching := sorted(FETCHES & value.keys()):
            raise ValueError(f"{', '.join(fetching)}: would fetch weights; a result brings its own")
        return value
