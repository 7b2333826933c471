"""What is in a train's image: its layers read as streams, its packages, its licences, the files that are its own."""

from policies.board.contents.report import ImageContents, ImageFile, read_contents

__all__ = ["ImageContents", "ImageFile", "read_contents"]
