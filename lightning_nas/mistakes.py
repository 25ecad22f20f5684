"""A mistake of the user, told in one line."""

from __future__ import annotations

from pathlib import Path

__all__ = ["one_line"]

_PACKAGE = Path(__file__).parent
_PARSER_NOISE = (
    "Does not validate",
    "Subtypes:",
    "Errors:",
    "Given value",
    "Problem with given class_path",
    "Expected a <class 'NoneType'>",
)


def _origin(error: BaseException) -> BaseException:
    """The error that this package raised, where a parser has wrapped it; otherwise the error itself."""
    link: BaseException | None = error
    while link is not None:
        frame = link.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        if frame is not None and Path(frame.tb_frame.f_code.co_filename).is_relative_to(_PACKAGE):
            return link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return error


def one_line(error: BaseException) -> str:
    """What the error says, without line breaks and without what a parser says of its own types."""
    lines = (line.strip().removeprefix("- ") for line in str(_origin(error)).splitlines())
    return " ".join(" ".join(line for line in lines if not line.startswith(_PARSER_NOISE)).split())
