"""The administrators' pages: people, calls, reports and the trail, by a browser without JavaScript."""

from __future__ import annotations

import pytest

from tests.doors.adminweb import keeper
from tests.doors.conftest import House

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_ones_own_page(rest: House) -> None:
    ada, web = await keeper(rest)
    await rest.services.wallets.create(ada.id, "7391", "NGN")
    shown = await web.get(f"/admin/people/{ada.id}")
    assert shown.status == 200, shown.words
