"""People: who has an account, one person's page, and what is done about them."""

from __future__ import annotations

from server.admin.visit import Page

PAGES: list[Page] = []
