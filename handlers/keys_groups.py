"""Encrypted groups (MLS): the order of their commits."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from handlers.context import Context
from handlers.keys_shapes import (
    CommitNotice,
    CommitsQuery,
    CommitView,
    GroupRef,
    GroupStateView,
    MakeCommit,
    ResetGroup,
    ResetNotice,
    WelcomeNotice,
)
from handlers.registry import notice, route
from handlers.shapes import Page, decode_cursor, encode_cursor
from models.errors import Refusal
from models.keys.groups.step import State, Step, Welcome
from models.mailbox.service import Mailbox
from models.ports import Device, Letter

GROUP_COMMIT = notice(
    "GROUP_COMMIT",
    CommitNotice,
    "To all members' devices but the committing one: the commit that ends an epoch.",
)
GROUP_WELCOME = notice(
    "GROUP_WELCOME", WelcomeNotice, "To a device that a commit has added: what lets it into the group."
)
GROUP_RESET = notice(
    "GROUP_RESET", ResetNotice, "To all members' devices but the one that did it: the group begins again."
)

_COMMIT, _WELCOME, _RESET = CommitNotice(), WelcomeNotice(), ResetNotice()


@route(
    "POST",
    "/api/keys/groups/{conversationId}/commits",
    takes=MakeCommit,
    gives=CommitView,
    wraps="commit",
    status=201,
    lane="conversation_id",
    refuses=["CONVERSATION_UNKNOWN", "EPOCH_CONFLICT", "IDEMPOTENCY_MISMATCH"],
)
async def make_commit(ctx: Context, ask: dict[str, Any]) -> Any:
    """Commit in an epoch, as the only one. The same ``opId`` again answers with the first commit.

    Whoever comes second gets ``EPOCH_CONFLICT`` with ``generation`` and ``epoch`` of now in its details: apply the
    commits that you have missed and commit again. ``welcome`` is told to the devices that this commit adds.
    """
    step = await ctx.services.key_groups.commit(
        _device(ctx),
        ask["conversation_id"],
        state=State(ask["generation"], ask["epoch"]),
        commit=ask["commit"],
        welcomes=[Welcome(**one) for one in ask["welcome"]],
        op_id=ask["op_id"],
    )
    return _view(step)


@route(
    "GET",
    "/api/keys/groups/{conversationId}/commits",
    takes=CommitsQuery,
    gives=CommitView,
    many=True,
    refuses=["CONVERSATION_UNKNOWN"],
)
async def list_commits(ctx: Context, ask: dict[str, Any]) -> Page:
    """The commits after epoch ``after``, oldest first, of the present ``generation`` unless you name another.

    The last 1000 are kept. When the first one here is not of ``after`` + 1, your device has been away for too long:
    have it added anew.
    """
    generation, after = _place(ask)
    page = await ctx.services.key_groups.commits(
        ctx.user_id, ask["conversation_id"], generation=generation, after=after, limit=ask["limit"]
    )
    last = page.items[-1] if page.more else None
    cursor = encode_cursor(str(last.generation), str(last.epoch)) if last else None
    return Page([_view(step) for step in page.items], cursor)


@route(
    "GET",
    "/api/keys/groups/{conversationId}",
    takes=GroupRef,
    gives=GroupStateView,
    wraps="group",
    refuses=["CONVERSATION_UNKNOWN"],
)
async def group_state(ctx: Context, ask: dict[str, Any]) -> Any:
    """Where an encrypted group stands."""
    return _standing(
        ask["conversation_id"], await ctx.services.key_groups.state(ctx.user_id, ask["conversation_id"])
    )


@route(
    "POST",
    "/api/keys/groups/{conversationId}/reset",
    takes=ResetGroup,
    gives=GroupStateView,
    wraps="group",
    lane="conversation_id",
    refuses=["CONVERSATION_UNKNOWN", "EPOCH_CONFLICT", "IDEMPOTENCY_MISMATCH"],
)
async def reset_group(ctx: Context, ask: dict[str, Any]) -> Any:
    """Begin a group again, when nobody can go on with it: the next generation, in epoch 0.

    Of several members who do so at once one succeeds; the others get ``EPOCH_CONFLICT`` and join that one.
    """
    step = await ctx.services.key_groups.reset(
        _device(ctx), ask["conversation_id"], generation=ask["generation"], op_id=ask["op_id"]
    )
    return _standing(step.conversation_id, step.after)


def _device(ctx: Context) -> Device:
    return Device(
        user_id=ctx.user_id, device_id=ctx.device_id, session_id=ctx.session_id, process=ctx.process
    )


def _place(ask: dict[str, Any]) -> tuple[int | None, int]:
    """Generation and epoch behind which a page begins."""
    parts = decode_cursor(ask["cursor"])
    if parts is None:
        return ask["generation"], ask["after"]
    if not all(part.isascii() and part.isdigit() and len(part) <= 15 for part in parts):
        raise Refusal("VALIDATION_FAILED", cursor=["Not a cursor of this list."])
    return int(parts[0]), int(parts[1])


def _standing(conversation_id: str, state: State) -> dict[str, Any]:
    return {"conversation_id": conversation_id, "generation": state.generation, "epoch": state.epoch}


def _view(step: Step) -> dict[str, Any]:
    return {
        **_standing(step.conversation_id, State(step.generation, step.epoch)),
        "commit": step.commit,
        "sender": step.sender_id,
        "device_id": step.device_id,
        "created_at": step.at,
    }


class GroupTeller:
    """``models.keys.groups.service.Announcer``: steps become letters."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def announce(self, step: Step, members: Collection[str], *, again: bool) -> None:
        """Keep and tell the letters; the device that took the step has it from its answer."""
        if step.commit is None:
            event = GROUP_RESET
            payload = _RESET.dump({**_standing(step.conversation_id, step.after), **_by(step)})
        else:
            event, payload = GROUP_COMMIT, _COMMIT.dump(_view(step))
        letters = [
            Letter(
                user_id=member,
                event=event,
                payload=dict(payload),
                key=f"mls:{step.id}",
                except_device=step.device_id if member == step.sender_id else None,
            )
            for member in members
        ]
        await self._mailbox.post([*letters, *_welcomes(step)], again=again)


def _by(step: Step) -> dict[str, str]:
    return {"sender": step.sender_id, "device_id": step.device_id}


def _welcomes(step: Step) -> list[Letter]:
    standing = _standing(step.conversation_id, step.after)
    sender = {"sender": step.sender_id, "sender_device_id": step.device_id}
    return [
        Letter(
            user_id=one.user_id,
            event=GROUP_WELCOME,
            payload=dict(_WELCOME.dump({**standing, **sender, "body": one.body})),
            key=f"mls:{step.id}:{one.device_id}",
            only_device=one.device_id,
        )
        for one in step.welcomes
    ]
