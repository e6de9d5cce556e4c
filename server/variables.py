"""The variables of the configuration: name, default, meaning. The README's table and `.env.example` are made of it."""

from __future__ import annotations

from dataclasses import dataclass

PUBLIC_STUN = "stun:stun.l.google.com:19302"


@dataclass(frozen=True, slots=True)
class Variable:
    """One line of the configuration table. `default` is text as it would be written; "" is: none."""

    name: str
    default: str
    meaning: str
    secret: bool = False


VARIABLES: tuple[Variable, ...] = (
    Variable("HOST", "127.0.0.1", "Address to listen on; 0.0.0.0 for every network"),
    Variable("PORT", "3000", "Port of HTTP and Socket.IO; 0 takes a free one"),
    Variable(
        "ENV",
        "development",
        "development, or production: no demo page, no made-up secret, no default origins",
    ),
    Variable("LOG_LEVEL", "info", "debug, info, warning or error"),
    Variable(
        "JOBS",
        "all",
        "all; own: only those about a server's own phones, the rest while no `worker` process lives",
    ),
    Variable("DATA_DIR", ".data", "Folder of the embedded database and of generated secrets"),
    Variable("MONGO_URI", "", "Any replica set, 6.0 or newer; without it an embedded one in DATA_DIR", True),
    Variable("MONGO_DATABASE", "ringmeter", "Name of the database in that MongoDB"),
    Variable(
        "REDIS_URL",
        "",
        "Processes on one database reach each other at once by it (Redis 6+), else in half a second by the database",
        True,
    ),
    Variable(
        "JWT_SECRET",
        "",
        "Signs access tokens, 32 bytes or more; required in production, else made in DATA_DIR",
        True,
    ),
    Variable(
        "CORS_ORIGINS",
        "",
        "Web origins that may call, comma-separated, :* for any port; in development localhost",
    ),
    Variable("TRUSTED_PROXY_HOPS", "0", "Proxies in front whose X-Forwarded-For is believed"),
    Variable("STUN_URLS", PUBLIC_STUN, "STUN servers for the apps, comma-separated; the word none for none"),
    Variable("TURN_URLS", "", "TURN servers for the apps, comma-separated, turn: or turns:"),
    Variable("TURN_SECRET", "", "The static-auth-secret of coturn; goes with TURN_URLS", True),
    Variable("TURN_TTL_SECONDS", "3600", "Life of a TURN credential, at most 86400"),
    Variable(
        "TURN_IN_CALLS_ONLY",
        "false",
        "true: TURN credentials only for who is in a live call or a room just then",
    ),
    Variable("EXPO_ACCESS_TOKEN", "", "Access token for Expo push with enhanced security", True),
    Variable("EXPO_URL", "", "Another address for Expo push, for tests; without it Expo's own"),
    Variable("FCM_SERVICE_ACCOUNT", "", "Google's key for FCM tokens: a JSON file's path, or the JSON", True),
    Variable("FCM_URL", "", "Another address for FCM, for tests; without it Google's own"),
    Variable("APNS_KEY", "", "Apple's key for APNS_VOIP tokens: a .p8 file's path, or the PEM", True),
    Variable("APNS_KEY_ID", "", "The id of that key; goes with APNS_KEY"),
    Variable("APNS_TEAM_ID", "", "The id of the Apple team; goes with APNS_KEY"),
    Variable("APNS_TOPIC", "", "The bundle id of the app; goes with APNS_KEY"),
    Variable("APNS_SANDBOX", "false", "true for apps that were built for development"),
    Variable("APNS_URL", "", "Another address for APNs, for tests; without it Apple's own"),
    Variable("LIVEKIT_URL", "", "LiveKit server for rooms past the mesh, wss://…; without it the mesh"),
    Variable("LIVEKIT_API_KEY", "", "An API key of that server; goes with LIVEKIT_URL"),
    Variable("LIVEKIT_API_SECRET", "", "The key's secret, 32 bytes or more; goes with LIVEKIT_URL", True),
    Variable("CURRENCY", "NGN", "ISO 4217 code of the currency in which calls are priced"),
    Variable(
        "CALL_RATE_MINOR", "1000", "Price of a minute, in minor units; a callee's own rate wins; 0 is free"
    ),
    Variable("CALL_VIDEO_RATE_MINOR", "", "Price of a minute with video; without it as with audio"),
    Variable("CALL_FIRST_BLOCK_SECONDS", "60", "The first seconds that are charged whole"),
    Variable("CALL_BLOCK_SECONDS", "60", "The blocks that are charged whole after them"),
    Variable("CALL_MINIMUM_MINOR", "1000", "The least that an answered call costs"),
    Variable("CALL_CONNECT_FEE_MINOR", "0", "Comes on top once for every answered call"),
    Variable(
        "PLATFORM_SHARE_BPS", "2000", "The platform's share of what a call costs, in hundredths of a percent"
    ),
    Variable("DISPUTE_WINDOW_SECONDS", "86400", "How long earnings stay pending before they can be spent"),
    Variable("RECEIPT_SECRET", "", "Signs receipts, 32 bytes or more; without it made from JWT_SECRET", True),
    Variable(
        "PIN_PEPPER", "", "Goes into wallet PINs, 32 bytes or more; without it made from JWT_SECRET", True
    ),
    Variable(
        "PUBLIC_URL",
        "",
        "Where clients reach this server, https://…, for checkout pages; in development http://127.0.0.1:PORT",
    ),
    Variable(
        "GATEWAY",
        "",
        "The payment gateway when a client names none; without it the first of those below, else the sandbox",
    ),
    Variable("MONNIFY_API_KEY", "", "Monnify's API key, MK_TEST_… or MK_PROD_…"),
    Variable("MONNIFY_SECRET_KEY", "", "Its secret key; goes with MONNIFY_API_KEY", True),
    Variable("MONNIFY_CONTRACT_CODE", "", "The contract that collects; goes with MONNIFY_API_KEY"),
    Variable("MONNIFY_ACCOUNT", "", "The Monnify wallet that withdrawals are paid from; without it none are"),
    Variable("MONNIFY_URL", "", "Another address for Monnify, for tests; without it Monnify's own"),
    Variable("PAYSTACK_SECRET_KEY", "", "Paystack's secret key, sk_test_… or sk_live_…", True),
    Variable("PAYSTACK_URL", "", "Another address for Paystack, for tests; without it Paystack's own"),
    Variable("STRIPE_SECRET_KEY", "", "Stripe's secret key, sk_test_… or sk_live_…", True),
    Variable(
        "STRIPE_WEBHOOK_SECRETS",
        "",
        "The webhook's signing secrets, comma-separated while one is replaced; goes with STRIPE_SECRET_KEY",
        True,
    ),
    Variable("STRIPE_URL", "", "Another address for Stripe, for tests; without it Stripe's own"),
    Variable("WITHDRAWAL_MINOR_MIN", "10000", "The least that is withdrawn at once"),
    Variable(
        "WITHDRAWAL_DAILY_MINOR_MAX",
        "100000000",
        "The most that a person withdraws in 24 hours; as the other two in CURRENCY, and worth as much in others",
    ),
    Variable("WITHDRAWAL_FEE_MINOR", "0", "What a withdrawal costs on top"),
    Variable(
        "WITHDRAWAL_APPROVAL_MINOR",
        "0",
        "Withdrawals above it wait until an administrator approves them, in CURRENCY and worth as much in others; "
        "0: none waits",
    ),
    Variable(
        "WITHDRAWAL_COOL_OFF_SECONDS",
        "",
        "How long nothing is withdrawn after a change of the PIN or a new bank account; without it 86400 in "
        "production and 0 in development",
    ),
    Variable(
        "FX_RATES",
        "",
        "Fixed rates, comma-separated like USD/NGN=1600.5; without them and FX_URL a few in development",
    ),
    Variable(
        "FX_URL", "", "Where rates are asked for, with {base} for the currency: JSON with base and rates"
    ),
    Variable("FX_SPREAD_BPS", "100", "What a conversion costs, in hundredths of a percent"),
    Variable("FX_QUOTE_SECONDS", "60", "How long a quote holds"),
    Variable(
        "REWARD_POINTS_PER_MINUTE", "1", "Points for the payer of a completed call, for each minute charged"
    ),
    Variable("REWARD_POINT_MINOR", "10", "What a point is worth as call credits, in minor units"),
    Variable("SMTP_URL", "", "Mail relay for notices, smtp://user:password@host:587 or smtps://…:465", True),
    Variable("MAIL_FROM", "", "The sender of notices; goes with SMTP_URL"),
    Variable("TWILIO_ACCOUNT_SID", "", "Twilio's account, for notices by SMS"),
    Variable("TWILIO_AUTH_TOKEN", "", "Its token; goes with TWILIO_ACCOUNT_SID", True),
    Variable("TWILIO_FROM", "", "The sending number, +…; goes with TWILIO_ACCOUNT_SID"),
    Variable("TWILIO_URL", "", "Another address for Twilio, for tests; without it Twilio's own"),
    Variable("RING_SECONDS", "45", "How long a call rings before it counts as not answered"),
    Variable("CONNECT_SECONDS", "30", "How long an accepted call may take until media flows"),
    Variable("RECONNECT_SECONDS", "30", "How long a call waits for a phone that lost its connection"),
    Variable("CALL_MAX_SECONDS", "14400", "Longest call"),
    Variable("CALLER_GRACE_SECONDS", "15", "How long a ringing call outlives its caller's connection"),
    Variable(
        "PAYEE_PROOF_SECONDS",
        "600",
        "How long the callee's media reports alone keep a paid call going while the caller's connection is gone",
    ),
    Variable("MEDIA_BYTES_MAX", "26214400", "The largest file that can be sent, in bytes"),
    Variable(
        "CLAMD",
        "",
        "ClamAV's daemon, which then looks at every file: its socket /run/clamd.sock or host:port",
    ),
    Variable(
        "MEDIA_USER_BYTES_MAX", "1073741824", "How much room the files of one person may take, in bytes"
    ),
    Variable(
        "ROOM_CAPACITY",
        "8",
        "Participants of a room unless it says less; in a mesh each sends its media to each other",
    ),
    Variable("ROOM_GRACE_SECONDS", "15", "How long a room waits for a phone that lost its connection"),
    Variable("ROOM_EMPTY_SECONDS", "86400", "How long a room stays open with nobody in it"),
    Variable(
        "TOTP_SECRET",
        "",
        "Encrypts the seeds of second factors, 32 bytes or more; without it made from JWT_SECRET",
        True,
    ),
    Variable(
        "TOTP_ISSUER", "Ringmeter", "The name of this server in authenticator apps and in messages to people"
    ),
    Variable(
        "PASSWORD_SCORE_MIN",
        "",
        "How hard a new password must be to guess, 0 to 4 (zxcvbn); without it 2 in production and 1 in development",
    ),
    Variable("GOOGLE_CLIENT_IDS", "", "Client ids of the apps that sign in with Google, comma-separated"),
    Variable("GOOGLE_KEYS_URL", "", "Another address for Google's public keys, for tests"),
    Variable("FACEBOOK_APP_ID", "", "The id of the app that signs in with Facebook (Limited Login)"),
    Variable("FACEBOOK_KEYS_URL", "", "Another address for Facebook's public keys, for tests"),
    Variable(
        "ADMIN_NETWORKS",
        "",
        "Networks from which /admin is there, comma-separated, 10.0.0.0/8; without it all",
    ),
    Variable("ACCESS_TOKEN_SECONDS", "900", "Life of an access token"),
    Variable("REFRESH_TOKEN_DAYS", "30", "Life of a refresh token that is not used"),
    Variable("SESSION_DAYS_MAX", "365", "Longest life of a sign-in, however often its tokens are refreshed"),
    Variable("BCRYPT_ROUNDS", "12", "Cost of a password hash, 4 to 16; each step doubles the time"),
    Variable("AUTH_PER_MINUTE", "10", "Sign-in attempts per minute from one address, and for one account"),
    Variable(
        "EVENTS_PER_SECOND",
        "10",
        "Events and requests per second of one device, in bursts of ten times as many; five times as many are relayed",
    ),
    Variable(
        "RINGS_PER_MINUTE", "30", "Calls that one person may begin in a minute, and ten times that in an hour"
    ),
    Variable(
        "STRANGER_RINGS_PER_MINUTE",
        "12",
        "How often in a minute one phone may ring before those wait with whom its owner has never talked",
    ),
    Variable(
        "DECLINE_COOL_OFF_SECONDS",
        "60",
        "How long somebody cannot be called again by whom they have declined six times in a row; it grows; 0: at once",
    ),
    Variable(
        "HANDSHAKES_PER_SECOND",
        "20",
        "Connections that one address may open, in bursts of twenty times as many",
    ),
    Variable("SOCKETS_PER_ADDRESS", "5000", "Open connections from one address at one process"),
    Variable("SOCKETS_PER_USER", "50", "Connected devices of one person at one process"),
    Variable("SOCKETS_MAX", "50000", "Open connections at one process"),
    Variable(
        "BLOCK_AFTER_REFUSALS",
        "300",
        "How often in ten minutes an address is told to slow down before it is kept out for a time; 0: never",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "Where traces go, by OTLP over HTTP, such as http://127.0.0.1:4318; without it there are none",
    ),
)


def env_example() -> str:
    """The text of `.env.example`: every variable, its meaning above it, commented out at its default."""
    head = (
        "# Copy to .env and take the # away from what you change. The environment wins over this file.\n"
        "# A secret may stand in a file of its own instead: where it says so, NAME_FILE=/path/of/the/file.\n"
        "# Written by: python main.py docs\n"
    )
    return head + "".join(
        f"\n# {v.meaning}{f' (or {v.name}_FILE)' if v.secret else ''}\n#{v.name}={v.default}\n"
        for v in VARIABLES
    )


def markdown_table() -> str:
    """The configuration table of the README."""
    rows = [
        f"| `{v.name}`{', `…_FILE`' if v.secret else ''} | {f'`{v.default}`' if v.default else ''} | {v.meaning} |"
        for v in VARIABLES
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows]) + "\n"
