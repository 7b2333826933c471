"""Brings verified images into the engine: the launcher's half that reads our layer store."""

from typing import Final

from policies.blobs import BlobFolder
from policies.errors import RefusedError, UnavailableError
from policies.refusals import RefusalCode
from station.sandbox.engine.api import Engine, layers_of
from station.sandbox.engine.dialect import Dialect, Json
from station.sandbox.image.archive import archive
from station.sandbox.image.rewriting import RewrittenImage, read_image
from station.sandbox.image.verified import LayerVerifier
from station.sandbox.spec import LoadedImage


class ImageLoader:
    """Loads what our layer store holds, under ids known before.

    Args:
        engine: the container engine.
        store: our layers.
    """

    def __init__(self, engine: Engine, store: BlobFolder) -> None:
        self._engine: Final = engine
        self._store: Final = store
        self._verifier: Final = LayerVerifier(store)

    def load(
        self, config_digest: str, dialect: Dialect, info: Json, series: str | None = None
    ) -> LoadedImage:
        """Bring an image from our layer store into the engine, verified byte by byte.

        Args:
            config_digest: the image's identity as the policy names it.
            dialect: the engine's.
            info: what the engine says of itself.
            series: names containers of one run that are started one after the other; see `LayerVerifier`.

        Raises:
            RefusedError: our store does not hold it as signed, or the engine made something else of it.
            UnavailableError: no engine answers, or it takes no image now.
        """
        rewritten = read_image(self._store, config_digest)
        image_id, layers = dialect.image_id(rewritten, info), rewritten.diff_ids
        if self._has(image_id, rewritten):
            read = self._verifier.verify(layers, series)
            return LoadedImage(image_id=image_id, layers_hashed=read, layers_sent=0)
        present = self._layers_present(layers) if dialect.may_skip_layers(info) else 0
        taken = False
        # Layers that it had a moment ago may be gone with another's image by now: then it is given all of them.
        for skip in dict.fromkeys((present, 0)):
            # The others are hashed while they are sent.
            self._verifier.verify(layers[:skip])
            taken = self._engine.load(archive(rewritten, self._store, skip=skip))
            if taken and self._has(image_id, rewritten):
                return LoadedImage(
                    image_id=image_id, layers_hashed=len(layers), layers_sent=len(layers) - skip
                )
        if not taken:
            # What it was given was verified: its disk is full, say, or it is busy with the same layers.
            raise UnavailableError(
                "the container engine took no image", hint="The launcher's log has the engine's own words."
            )
        raise RefusedError(
            RefusalCode.IMAGE_DIGEST, "the engine did not make the verified image of what it was given"
        )

    def remove(self, config_digest: str, dialect: Dialect, info: Json) -> bool:
        """Remove the image that we made of one in our store; says whether it is gone.

        Nothing else can be removed: the id is computed from our store, and an image that got a name since is somebody's.

        Raises:
            UnavailableError: no engine answers.
        """
        try:
            rewritten = read_image(self._store, config_digest)
        except RefusedError:
            # Of what is not whole here, or is refused, no image was made.
            return True
        found = self._engine.image(dialect.image_id(rewritten, info))
        if found is None or found.get("RepoTags") or layers_of(found) != rewritten.diff_ids:
            return True
        return self._engine.remove_image(str(found["Id"]))

    def _has(self, image_id: str, rewritten: RewrittenImage) -> bool:
        """Whether the engine has our image with exactly its layers.

        Raises:
            RefusedError: it shows our id with other layers.
        """
        found = self._engine.image(image_id)
        if found is None:
            return False
        if found.get("Id") != image_id or layers_of(found) != rewritten.diff_ids:
            raise RefusedError(
                RefusalCode.IMAGE_DIGEST, "the engine's layers are not those of the signed image"
            )
        return True

    def _layers_present(self, diff_ids: tuple[str, ...]) -> int:
        """Return how many of the lowest layers the engine already has, in this order."""
        best = 0
        for theirs in self._engine.image_layers():
            same = 0
            while same < min(len(diff_ids), len(theirs)) and diff_ids[same] == theirs[same]:
                same += 1
            best = max(best, same)
        return best
