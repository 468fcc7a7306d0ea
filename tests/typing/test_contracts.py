"""Mistakes in the use of messages are found by type checkers, and right use is accepted."""

import pytest
from tests.typing.conftest import Complaints, check
from tests.typing.snippets import Snippet, read_snippets

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("snippet", read_snippets("contracts"), ids=lambda snippet: snippet.title)
def test_checkers_say_what_they_should(snippet: Snippet, complaints: Complaints) -> None:
    check(snippet, complaints)
