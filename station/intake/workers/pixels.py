"""How the pixels of a file are looked at: by the inspection that the hospital set up, or as a person who looked says."""

from pydicom.dataset import Dataset

from station.intake.workers.messages import TakeTask
from station.pseudonymisation.pixels import Box, PixelFinding, PixelInspector
from station.pseudonymisation.pixels.settings import PixelSettings


class Inspection:
    """Looks at the pixels of one file after the other.

    Args:
        settings: what the hospital says about burned-in text.
    """

    def __init__(self, settings: PixelSettings) -> None:
        self._inspector = PixelInspector(settings)

    def look(self, dataset: Dataset, task: TakeTask) -> PixelFinding:
        """Inspect a file, or mask what a person marked and claim nothing.

        Raises:
            PseudonymisationError: the file waits for a person.
        """
        if not task.reviewed:
            return self._inspector.inspect(dataset)
        boxes = [Box(box.top, box.left, box.top + box.height, box.left + box.width) for box in task.boxes]
        return self._inspector.mask_boxes(dataset, boxes)


def not_inspected(dataset: Dataset) -> PixelFinding:
    """Return what is known of pixels at which nobody looked: nothing."""
    return PixelFinding("not-inspected", False, None, 0, dataset)
