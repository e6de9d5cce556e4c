"""The administrators' pages under ``/admin``: HTML made here, usable without JavaScript; htmx keeps some of it live."""
