"""The catalogue of refusal texts: what each code means and what to do about it, for people outside a station.

One text per code, the same wherever it shows. A text never quotes data, a path, or anything a train wrote. A test holds
the catalogue to `policies.refusals.RefusalCode`: no code without a text, no text without a code. `asking` holds what a
station is asked to do, `hospital` what the hospital itself says no to, `returning` what a train did and answered.
"""

from policies.refusal_texts.catalogue import CATALOGUE, text_of

__all__ = ["CATALOGUE", "text_of"]
