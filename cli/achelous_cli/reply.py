"""What the API answered."""

from dataclasses import dataclass

from achelous_cli.failures import Document


@dataclass(frozen=True, slots=True)
class Reply:
    """``text``: exactly what came; ``document``: the JSON object in it, empty if nothing came."""

    text: str
    document: Document
