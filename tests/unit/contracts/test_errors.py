"""What is told of errors can be written anywhere."""

from __future__ import annotations

from amends.contracts.errors import stack_of, text_of


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_text_that_no_encoding_can_write_is_escaped() -> None:
    error = raised(ValueError("file \udcff"))
    assert text_of(error) == "file \\udcff"
    assert b"file \\udcff" in stack_of(error).encode()


def test_an_exception_that_cannot_say_what_it_is_does_no_harm() -> None:
    error = raised(Mute())
    assert text_of(error) == "(its message cannot be read)"
    assert "Mute" in stack_of(error)


def test_other_text_stays_as_it_is() -> None:
    assert text_of(ValueError("Größe: 3 €")) == "Größe: 3 €"
