"""The sections about the hospital's own DICOM network: what may send here, and what is asked of which PACS."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from policies.documents import Name, Sequence, StrictModel
from station.settings.sections import FilePath, Hours

AeTitle = Annotated[str, Field(pattern=r"^[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?$")]
"""1 to 16 printable characters without a backslash (PS3.5 section 6.2), no space at either end."""

HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\-]{1,253}$")]
PortNumber = Annotated[int, Field(ge=1, le=65_535)]
WebPath = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~/\-]{0,200}$")]
Feed = Annotated[
    tuple[AeTitle, AeTitle, Name],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_TLS_FILES = ("tls_ca_file", "tls_certificate_file", "tls_key_file")


class ReceiverSettings(StrictModel):
    """The C-STORE receiver: modalities and the PACS send to it."""

    enabled: bool = Field(default=False, description="Whether anything listens at all.")
    address: HostName = Field(
        default="127.0.0.1", description="The address of this host to listen on; 0.0.0.0 for every one."
    )
    port: PortNumber = Field(default=11_112, description="The port to listen on.")
    feeds: Sequence[Feed] = Field(
        default=(),
        description="Who may send, under which of our AE titles, and into which collection: "
        "[[calling AE title, called AE title, collection], ...]. Everybody else is refused.",
    )
    tls: Literal["mutual", "none"] = Field(
        default="mutual",
        description="'mutual': TLS 1.2 or later and a client certificate of tls_ca_file. 'none': plain DICOM.",
    )
    tls_ca_file: FilePath | None = Field(
        default=None, description="PEM file of the authority that issued the senders' certificates."
    )
    tls_certificate_file: FilePath | None = Field(
        default=None, description="PEM file of the receiver's certificate chain."
    )
    tls_key_file: FilePath | None = Field(default=None, description="PEM file of its private key, 0600.")
    max_associations: Annotated[int, Field(ge=1, le=100)] = Field(
        default=8, description="Associations at once; further ones are refused for the time being."
    )
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1 << 20)] = Field(
        default=131_072, description="The longest PDU a sender may send."
    )
    max_instance_mib: Annotated[int, Field(ge=1, le=2048)] = Field(
        default=256, description="An instance longer than this ends its association; it is held in memory."
    )
    timeout_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=60, description="Seconds without a word after which an association is ended."
    )
    batch_instances: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000, description="An association's instances are passed on for processing after this many,"
    )
    batch_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=60, description="or after this many seconds, or when it ends."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.enabled and self.tls == "mutual" and any(getattr(self, name) is None for name in _TLS_FILES):
            raise ValueError(f"tls = 'mutual' needs {', '.join(_TLS_FILES)}")
        pairs = [(calling, called) for calling, called, _ in self.feeds]
        if len(set(pairs)) != len(pairs):
            raise ValueError("feeds: a calling and called AE title stand twice")
        return self


class PacsSettings(StrictModel):
    """One PACS that the station may ask, and with what manners."""

    name: Name = Field(description="What the operator calls it.")
    host: HostName = Field(description="Where it listens.")
    port: PortNumber = Field(default=104, description="Where it listens.")
    ae_title: AeTitle | Literal[""] = Field(default="", description="Its AE title; none with dicomweb.")
    calling_ae_title: AeTitle | Literal[""] = Field(
        default="", description="Ours, under which it knows the station; none with dicomweb."
    )
    method: Literal["c-move", "c-get", "dicomweb"] = Field(
        default="c-move",
        description="'c-move': it sends to our receiver, which must be enabled. 'c-get': over the same association. "
        "'dicomweb': searched and retrieved from over HTTP (QIDO-RS, WADO-RS).",
    )
    web_path: WebPath = Field(default="/dicom-web", description="With dicomweb: the root of its services.")
    web_user: Annotated[str, Field(pattern=r"^[!-9;-~]{1,100}$")] | None = Field(
        default=None, description="With dicomweb: the user to show, with web_password_file."
    )
    web_password_file: FilePath | None = Field(
        default=None, description="With dicomweb: a file that holds the user's password, 0600."
    )
    web_token_file: FilePath | None = Field(
        default=None, description="With dicomweb: a file that holds a bearer token, 0600, instead of a user."
    )
    move_ae_title: AeTitle | None = Field(
        default=None,
        description="The AE title of our receiver for what was asked with c-move; calling_ae_title where not given.",
    )
    tls: Literal["mutual", "server", "none"] = Field(
        default="mutual",
        description="'mutual': TLS 1.2 or later, both sides with certificates. 'server': with dicomweb, only it shows one. "
        "'none': plain DICOM or HTTP.",
    )
    tls_ca_file: FilePath | None = Field(
        default=None, description="PEM file of the authority that issued its certificate."
    )
    tls_certificate_file: FilePath | None = Field(
        default=None, description="PEM file of our certificate chain."
    )
    tls_key_file: FilePath | None = Field(default=None, description="PEM file of its private key, 0600.")
    hours: Sequence[Hours] = Field(
        default=(),
        description='When it may be asked, in the time zone of [hospital], for example [["19:00", "06:00"]]; '
        "always where empty.",
    )
    associations: Annotated[int, Field(ge=1, le=8)] = Field(
        default=1, description="How many associations we open to it at once."
    )
    instances_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=6000, description="Retrieve at most this many instances a minute, on average."
    )
    studies_per_minute: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=60, description="Retrieve at most this many studies a minute."
    )
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=6, description="A study that fails is given up after this many attempts."
    )
    backoff_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=10.0, description="The first pause after a refusal; it doubles, with jitter,"
    )
    backoff_longest_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        default=900.0, description="up to this long."
    )
    timeout_s: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=120, description="Seconds without an answer after which an association is given up."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.tls == "mutual" and any(getattr(self, name) is None for name in _TLS_FILES):
            raise ValueError(f"tls = 'mutual' needs {', '.join(_TLS_FILES)}")
        if any(start == end for start, end in self.hours):
            raise ValueError("hours: a range that ends when it starts says nothing")
        return self

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        shown = (self.web_user, self.web_password_file, self.web_token_file)
        if self.method != "dicomweb":
            if not self.ae_title or not self.calling_ae_title:
                raise ValueError("c-move and c-get need ae_title and calling_ae_title")
            if self.tls == "server" or any(value is not None for value in shown):
                raise ValueError("tls = 'server' and the keys that begin with web_ go with dicomweb")
            return self
        if self.tls == "server" and self.tls_ca_file is None:
            raise ValueError("tls = 'server' needs tls_ca_file")
        if (self.web_user is None) != (self.web_password_file is None) or (
            self.web_user is not None and self.web_token_file is not None
        ):
            raise ValueError("web_user goes with web_password_file, or web_token_file stands alone")
        if self.tls == "none" and any(shown) and self.host not in _LOOPBACK:
            raise ValueError("a password or token goes over TLS")
        return self

    @property
    def destination(self) -> str:
        """The AE title that a C-MOVE names as its destination."""
        return self.move_ae_title or self.calling_ae_title
