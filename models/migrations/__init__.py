"""Changes of what older versions have written: each is done once, by one process, before anybody is served.

A migration is a module of this folder named ``m0001_what_it_does`` with ``async def run(db)``; its docstring says what
it changes. It is put at the end of ``models.migrations.steps.MODULES`` and never changed or moved afterwards. What
holds for each:

- It may be run again from any point in its middle, and then ends the same: a process may die in it, and one that stood
  still longer than its lease may still be at work while another has begun. So it changes what is still old
  (``update_many({"new_field": {"$exists": False}}, …)``), and counts nothing up.
- It leaves what the version before it can read, since its processes serve on while the first new one starts. What the
  old version needs is taken away by a migration of the version after.
- It runs before the validators and indexes of the new version are made, so it may make room for them. On a new database
  it finds nothing to do.
"""
