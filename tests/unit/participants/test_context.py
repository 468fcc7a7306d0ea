"""What handlers are told, as unit tests of users make it themselves."""

from __future__ import annotations

import pytest
from tests.support.desk import Release, Reserve, Reserved, key

from amends.contracts import UsageError
from amends.participants import Context, Session, Undoes


def test_context_needs_nothing_to_be_made() -> None:
    ctx: Context = Context()
    assert (ctx.saga_id, ctx.attempt, ctx.deadline) == ("", 0, None)


def test_step_is_read_from_the_effect_key() -> None:
    assert Context(effect_key=key("pick#2/3")).step == "pick"
    with pytest.raises(ValueError, match="no effect key"):
        _ = Context(effect_key="of another make").step


def test_action_undoes_nothing() -> None:
    with pytest.raises(UsageError, match="an action undoes nothing"):
        _ = Context().undoes


def test_session_is_explained_where_there_is_none() -> None:
    with pytest.raises(UsageError, match="transactional=True"):
        _ = Context().session


def test_action_and_undo_have_idempotency_keys_of_their_own() -> None:
    acting: Context = Context(effect_key=key(), revision=3, attempt=9)
    undoing = Context[Reserve](effect_key=key(), undoes=Undoes(Reserve(sku="lamp")))
    assert (acting.idempotency_key, undoing.idempotency_key) == (key(), f"{key()}/undo")


def test_compensation_is_told_what_it_undoes() -> None:
    def release(undo: Release, ctx: Context[Reserve]) -> str:
        return f"{ctx.undoes.command.sku} {ctx.undoes.reply.reservation}"

    undoes: Undoes[Reserve] = Undoes(Reserve(sku="lamp"), Reserved(reservation="r1"))
    assert release(Release(), Context(undoes=undoes)) == "lamp r1"
    assert undoes.outcome == "done"


def test_unknown_outcome_has_a_command_and_no_reply() -> None:
    undoes: Undoes[Reserve] = Undoes(Reserve(sku="lamp"), outcome="unknown")
    assert (undoes.outcome, undoes.command) == ("unknown", Reserve(sku="lamp"))
    with pytest.raises(UsageError, match=r"the outcome of Reserve is unknown.*ctx\.undoes\.command"):
        _ = undoes.reply


def test_session_is_public_for_annotations() -> None:
    assert Session.__name__ == "Session"
