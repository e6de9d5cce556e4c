"""All handler modules: importing one puts what it declares into the catalogue."""

from __future__ import annotations

import handlers.apikeys
import handlers.auth
import handlers.auth_codes
import handlers.auth_oauth
import handlers.billing
import handlers.call_logs
import handlers.calls
import handlers.calls_jobs
import handlers.chat
import handlers.chat_groups
import handlers.elsewhere
import handlers.export
import handlers.fx
import handlers.ice
import handlers.keys
import handlers.keys_groups
import handlers.livekit
import handlers.media
import handlers.notices
import handlers.notify
import handlers.papers
import handlers.payments
import handlers.payouts
import handlers.presence
import handlers.reports
import handlers.rewards
import handlers.rooms
import handlers.rooms_jobs
import handlers.sandbox
import handlers.second_factor
import handlers.system
import handlers.users
import handlers.wallet  # noqa: F401
