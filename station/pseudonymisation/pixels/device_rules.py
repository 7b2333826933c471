"""What is known of a device's pictures before anyone looks at their pixels: rules as data, the first match decides."""

from enum import StrEnum
from functools import cache
from importlib.resources import files

from pydantic import Field
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from policies.documents import Sequence, StrictModel, Text, load_json


class Verdict(StrEnum):
    """What to do with a picture's pixels."""

    TRUST = "trust"
    INSPECT = "inspect"
    QUARANTINE = "quarantine"


class DeviceRule(StrictModel):
    """One rule; what it does not name matches everything."""

    why: Text
    then: Verdict
    sop_class: Sequence[str] = ()
    modality: Sequence[str] = ()
    image_type: Sequence[str] = ()
    not_image_type: Sequence[str] = ()
    burned_in: Sequence[str] = ()
    description: Sequence[str] = ()
    manufacturer: Sequence[str] = Field(default=(), description="Beginnings of Manufacturer, in capitals.")

    def matches(self, ds: Dataset) -> bool:
        """Tell whether the rule speaks of this picture."""
        types = _values(ds, "ImageType")
        names = f"{_value(ds, 'SeriesDescription')}\n{_value(ds, 'ProtocolName')}".replace("_", " ")
        return (
            (not self.sop_class or _value(ds, "SOPClassUID") in self.sop_class)
            and (not self.modality or _value(ds, "Modality") in self.modality)
            and (not self.image_type or any(word in types for word in self.image_type))
            and not any(word in types for word in self.not_image_type)
            and (not self.burned_in or _value(ds, "BurnedInAnnotation") in self.burned_in)
            and (not self.description or any(word in names for word in self.description))
            and (not self.manufacturer or _value(ds, "Manufacturer").startswith(self.manufacturer))
        )


class DeviceRules(StrictModel):
    """The rules in their order."""

    note: Text
    rules: Sequence[DeviceRule]


@cache
def load_device_rules() -> DeviceRules:
    """Read the shipped rules."""
    data = files("station.pseudonymisation.pixels").joinpath("device_rules.json").read_bytes()
    return load_json(DeviceRules, data, what="device rules")


def verdict_on(ds: Dataset) -> Verdict:
    """Return what the first matching rule says; without one, a person looks."""
    for rule in load_device_rules().rules:
        if rule.matches(ds):
            return rule.then
    return Verdict.QUARANTINE


def _value(ds: Dataset, keyword: str) -> str:
    return str(ds.get(keyword) or "").strip(" \0").upper()


def _values(ds: Dataset, keyword: str) -> frozenset[str]:
    value = ds.get(keyword)
    several = value if isinstance(value, MultiValue | list | tuple) else [value]
    return frozenset(str(entry or "").strip(" \0").upper() for entry in several)
