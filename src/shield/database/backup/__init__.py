"""Backups: one consistent snapshot of everything the database holds, in one file, and the way back.

`snapshot` reads all tables in one transaction, `archive` is the file's format, `places` is where it lies (disk, S3), `restore` fills
an empty database from it, and `renewal` makes sure that nobody who worked for the old database can write into the new one.
"""

from shield.database.backup.places import Place, place_of
from shield.database.backup.restore import Restored, check, restore
from shield.database.backup.snapshot import Backup, Saved

__all__ = ["Backup", "Place", "Restored", "Saved", "check", "place_of", "restore"]
