//! 1xxx: pool, drives, journal.

codes! {
    1001 LAB_POOL Warning, exit Refused, http 409, since "0.1.0" {
        what: "The pool has fewer than 5 drives and is for the lab only.",
        why: "With 4 or 3 drives every stripe still survives the loss of two drives, at a high price in space; with 2 drives it survives one loss; with 1 drive nothing is redundant and a damaged unit can be noticed but not repaired.",
        act: ["use at least 5 drives for data that matters: vmhold quickstart --drives 8", "keep a copy of what is stored here elsewhere"],
        urgency: "before anything of value is stored here",
        clears: "the pool has 5 drives or more",
        parameters: ["pool", "drives"],
    }
    1002 LAB_JOURNAL Warning, exit Refused, http 409, since "0.1.0" {
        what: "The journal stands on an ordinary file.",
        why: "Each acknowledged write was flushed to that file, so it survives a crash of the process and of the machine as far as the disk below keeps its promises; it does not survive the loss of that disk, because there is no second leg. With --memory it does not survive a restart of the machine at all.",
        act: ["put the journal on persistent memory or a power-protected device for data that matters", "give it a second leg on another device"],
        urgency: "before anything of value is stored here",
        clears: "the journal stands on persistent memory or a power-protected device",
        parameters: ["leg", "kind"],
    }
    1003 SLOW_DRIVE_PATH Warning, exit Failed, http 503, since "0.1.0" {
        what: "Direct or io_uring access is refused here; drives are served by threads.",
        why: "Containers often forbid io_uring, and some file systems refuse direct I/O. Data is as safe as otherwise; every access costs more time and processor.",
        act: ["allow io_uring for this container, or put the drives on a file system with direct I/O"],
        urgency: "when speed matters",
        clears: "the drives are opened again with io_uring and direct I/O",
        parameters: ["drive", "reason"],
    }
    1004 REAL_BLOCK_DEVICE Error, exit Refused, http 409, since "0.1.0" {
        what: "The demo refuses to use a real block device.",
        why: "The demo creates and destroys its drives; on a block device that would erase what is on it.",
        act: ["name a folder instead: vmhold quickstart --dir ./vmhold-demo", "for real devices use a configuration file: vmhold serve --config FILE"],
        urgency: "nothing was changed",
        clears: "the command names a folder",
        parameters: ["path"],
    }
    1005 FOREIGN_DRIVE Error, exit Refused, http 409, since "0.1.0" {
        what: "A drive belongs to another pool, or holds something else.",
        why: "The label on the drive names another pool, or there is data where a label would be. Using it would destroy that data, so it is left untouched.",
        act: ["check the path of the drive", "if its content is worthless, erase its first MiB yourself and run the command again"],
        urgency: "nothing was changed",
        clears: "the drive is removed or replaced by one of this pool",
        parameters: ["drive", "path", "owner"],
    }
    1006 DRIVE_TOO_SMALL Error, exit Refused, http 409, since "0.1.0" {
        what: "A drive is smaller than the pool needs.",
        why: "A drive holds its label, the registers of the group and at least a few extents; a replacement also needs room for what it replaces.",
        act: ["use a larger drive: vmhold quickstart --size 1GiB"],
        urgency: "nothing was changed",
        clears: "the drive is large enough",
        parameters: ["drive", "size_bytes", "needed_bytes"],
    }
    1007 POOL_EXISTS Error, exit Refused, http 409, since "0.1.0" {
        what: "There is already a pool here.",
        why: "Creating a pool erases its drives; existing pools are never created anew by accident.",
        act: ["start it: vmhold quickstart resume", "or remove it first: vmhold quickstart destroy"],
        urgency: "nothing was changed",
        clears: "the pool is removed or another folder is named",
        parameters: ["path"],
    }
    1008 POOL_NOT_FOUND Error, exit NotFound, http 404, since "0.1.0" {
        what: "There is no pool of that name.",
        why: "The name is misspelt, or the command talks to another appliance or folder.",
        act: ["list the pools: vmhold pool list"],
        urgency: "nothing was changed",
        clears: "an existing pool is named",
        parameters: ["pool"],
    }
    1009 POOL_IN_USE Error, exit Refused, http 409, since "0.1.0" {
        what: "Another process has this pool's drives or journal.",
        why: "Two processes on the same drives would undo each other's writes, so only one may have them. It is a server of this pool, by this or by another configuration, or a command that still works on it.",
        act: ["find it: fuser PATH", "stop it, and try again"],
        urgency: "nothing was changed",
        clears: "the other process has ended",
        parameters: ["path"],
    }
    1011 POOL_NEARLY_FULL Warning, exit Failed, http 507, since "0.1.0" {
        what: "The pool is nearly full.",
        why: "More than 85 % of the space is used. The cleaner has less room to work with, so writes get slower; at 100 % new writes are refused with NOSPC while reads and deletes go on.",
        act: ["see what uses the space: vmhold datastore list", "delete what is not needed, or add drives"],
        urgency: "within days, sooner if the fill rate is high",
        clears: "less than 80 % is used",
        parameters: ["pool", "used_percent"],
    }
    1012 POOL_FULL Error, exit Failed, http 507, since "0.1.0" {
        what: "The pool is full; new writes are refused.",
        why: "All space but the reserve of the cleaner and of deletes is used. Reads, deletes and truncations go on, and nothing acknowledged is lost. Guests see a full disk or pause, depending on the hypervisor.",
        act: ["delete files that are not needed: the space comes back within minutes", "add drives to the pool"],
        urgency: "now: guests cannot write",
        clears: "less than 95 % is used",
        parameters: ["pool", "free_bytes"],
    }
    1015 WOULD_LOSE_REDUNDANCY Error, exit Refused, http 409, since "0.1.0" {
        what: "The step is refused because the pool cannot lose another drive.",
        why: "Failed drives already use up the redundancy; one more would make data unreadable.",
        act: ["wait until the rebuild is done: vmhold status", "replace the failed drive first"],
        urgency: "nothing was changed",
        clears: "the pool can lose a drive again",
        parameters: ["pool", "drive"],
    }
    1016 NOT_A_LAB_POOL Error, exit Refused, http 409, since "0.1.0" {
        what: "Faults are only injected into a pool that was made for it.",
        why: "A fault on purpose hurts redundancy and speed. Only a pool that was marked as a lab pool when it was made takes one; the mark stands in the pool itself and cannot be given later, so no pool with data that matters can be hurt by a slip of the hand.",
        act: ["make a pool to try it on: vmhold quickstart", "or: vmhold pool create NAME --lab ..."],
        urgency: "nothing was changed",
        clears: "a lab pool is named",
        parameters: ["pool"],
    }
    1017 FAULT_INJECTED Warning, exit Failed, http 503, since "0.1.0" {
        what: "A drive does something wrong on purpose.",
        why: "Someone injected a fault into this lab pool (vmhold audit list says who). It ends by itself; what it leaves on the drive is found and repaired by the next scrub, or when it is read.",
        act: ["nothing: it ends by itself", "end it now: vmhold inject stop POOL", "see it: vmhold inject list POOL"],
        urgency: "none",
        clears: "its time is over, or it was stopped",
        parameters: ["pool", "drive", "fault"],
    }
    1021 DRIVE_FAILED Error, exit Failed, http 503, since "0.1.0" {
        what: "A drive failed and is no longer used.",
        why: "It answered with errors, or its file was removed, cut short or replaced by another. All data on it is reconstructed from the other drives, and new stripes avoid it.",
        act: ["replace the drive", "see what can still be lost: vmhold status"],
        urgency: "within days while the pool is DEGRADED, now if it is CRITICAL",
        clears: "the drive is replaced and rebuilt, or retired from the pool",
        parameters: ["pool", "drive", "reason"],
    }
    1022 DRIVE_MISSING Error, exit Failed, http 503, since "0.1.0" {
        what: "A drive of the pool is not there.",
        why: "The file or device was not found, or does not carry this pool's label. Data on it is reconstructed from the other drives; if it comes back it is checked before it is used.",
        act: ["push it back, or correct its path", "if it is gone for good, replace it"],
        urgency: "within days while the pool is DEGRADED, now if it is CRITICAL",
        clears: "the drive is back and up to date, or replaced",
        parameters: ["pool", "drive", "path"],
    }
    1023 POOL_CRITICAL Error, exit Failed, http 503, since "0.1.0" {
        what: "The pool has no redundancy left for some of its data.",
        why: "Two drives are gone. Everything is still readable and correct; one more loss, or one more damaged unit, makes data unreadable.",
        act: ["replace or push back a drive now", "do not take out any other drive"],
        urgency: "now",
        clears: "at least one more drive may be lost again",
        parameters: ["pool", "drives_lost"],
    }
    1025 POOL_DEGRADED Warning, exit Failed, http 503, since "0.1.0" {
        what: "The pool can lose fewer drives than it should.",
        why: "A drive is gone and stripes written before are short of one unit. New stripes are written narrower over the healthy drives and have full redundancy.",
        act: ["replace or push back the drive", "see which: vmhold drive list"],
        urgency: "within days",
        clears: "every stripe has full redundancy again",
        parameters: ["pool", "drives_lost"],
    }
    1026 POOL_FAULTED Error, exit Failed, http 503, since "0.1.0" {
        what: "The pool cannot serve all of its data.",
        why: "More drives are gone than the redundancy covers. Nothing is served rather than something wrong. If drives come back, the pool comes back whole.",
        act: ["bring back missing drives: vmhold drive list names them", "do not erase or replace drives before that"],
        urgency: "now: datastores are down",
        clears: "enough drives are back",
        parameters: ["pool", "drives_lost", "drives_needed"],
    }
    1028 NO_SPARE Warning, exit Failed, http 503, since "0.1.0" {
        what: "A drive is out and no spare can take its place.",
        why: "There is none, or none is large enough. The pool works with less redundancy until a drive is added or the lost one comes back.",
        act: ["add a blank drive: vmhold drive spare add PATH", "or push the drive back if it was only pulled"],
        urgency: "within days while the pool is DEGRADED, now if it is CRITICAL",
        clears: "a drive takes the place",
        parameters: ["pool", "drive"],
    }
    1029 SPARE_REFUSED Error, exit Refused, http 409, since "0.1.0" {
        what: "A drive was offered and is not taken.",
        why: "Every drive is examined before it is used: its size, its alignment, whether it belongs to someone, and whether it gives back what is written to it. This one failed.",
        act: ["read why in the message", "offer another drive; if this one holds something worthless, erase its first MiB"],
        urgency: "as urgent as the drive it should replace",
        clears: "another drive takes the place",
        parameters: ["pool", "path", "reason"],
    }
    1031 UNIT_REPAIRED Info, exit Failed, http 503, since "0.1.0" {
        what: "A damaged stripe unit was found and repaired.",
        why: "Its check did not match: a flipped bit, a lost, torn or misplaced write, or an unreadable sector. The right content was reconstructed from the other drives, answered, and written back.",
        act: ["nothing; if one drive gathers many of these, replace it: vmhold drive list"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["pool", "drive", "segment", "row", "found_by"],
    }
    1032 UNREPAIRABLE_UNIT Error, exit Failed, http 503, since "0.1.0" {
        what: "Data is damaged beyond what redundancy can repair.",
        why: "More units of one stripe are damaged or gone than it has parity. The blocks concerned are answered with an I/O error, never with wrong bytes; everything else is served.",
        act: ["bring back missing drives if there are any", "list what is hit: vmhold fsck", "restore the files named there from a copy"],
        urgency: "now",
        clears: "the blocks are overwritten, deleted, or readable again",
        parameters: ["pool", "segment", "row", "files"],
    }
    1033 REFERENCE_DAMAGED Error, exit Failed, http 503, since "0.1.0" {
        what: "A check of the store found a reference that does not hold.",
        why: "A file refers to a block that is not there or is not the one meant, or counts do not agree. This is damage in the store's own books and is not expected from failed drives alone.",
        act: ["keep the output of: vmhold fsck --json", "restore the files named there from a copy", "report it, with that output"],
        urgency: "now",
        clears: "a later check is clean",
        parameters: ["kind", "place", "detail"],
    }
    1034 SCRUB_DONE Info, exit Failed, http 503, since "0.1.0" {
        what: "A scrub has read and checked everything once.",
        why: "Every written unit was compared with its check, every stripe with its parity, every data object with its own check; what was damaged was repaired at once.",
        act: ["nothing; see what the passes found: vmhold pool history NAME"],
        urgency: "none",
        clears: "at once",
        parameters: ["pool", "stripes", "repaired"],
    }
    1035 SCRUB_OVERDUE Warning, exit Failed, http 503, since "0.1.0" {
        what: "A scrub takes longer than the time it is given.",
        why: "It was paused, a rebuild went first, or there is more to read than the drives can give beside their work. Damage in data that nobody reads stays unnoticed for longer.",
        act: ["let it go on: vmhold pool scrub resume NAME", "or make a pass now, in a quiet hour: vmhold pool scrub start NAME"],
        urgency: "within weeks",
        clears: "the pass is done",
        parameters: ["pool", "percent"],
    }
    1036 METADATA_DAMAGED Error, exit Failed, http 503, since "0.1.0" {
        what: "Metadata of the pool is damaged beyond what redundancy can repair.",
        why: "Pages that say where files are stored lie in stripes of which more units are damaged or gone than they have parity. What they led to is refused; the objects themselves say what they are, and a log repeats the pages in other stripes, so a scan of everything can put the pages together again.",
        act: ["bring back missing drives if there are any", "stop the store, then see what a scan would restore: vmhold fsck --repair-scan --dry-run", "and have it done: vmhold fsck --repair-scan"],
        urgency: "now",
        clears: "a repair scan has made the metadata anew",
        parameters: ["pool"],
    }
    1037 REPAIR_SCAN_INCOMPLETE Error, exit Failed, http 503, since "0.1.0" {
        what: "A repair scan could not restore everything.",
        why: "The objects of some ranges are gone, or nothing that is left proves what their newest content was. These ranges are answered with an I/O error until they are written over, never with older data.",
        act: ["bring back missing drives if there are any, and scan again before it is done", "keep the output of: vmhold fsck --repair-scan --dry-run --json", "restore the files named there from a copy"],
        urgency: "now",
        clears: "the ranges are overwritten or deleted",
        parameters: ["pool", "files"],
    }
    1041 DRIVE_SLOW Warning, exit Failed, http 503, since "0.1.0" {
        what: "A drive answers far slower than its peers.",
        why: "More than half of its requests take many times what the other drives take for the same. Its reads are answered from the others; its writes hold up everybody. After a minute of this it is put out and a spare takes its place, if the pool can lose one more then; one that is so is enough for an hour.",
        act: ["watch it: vmhold drive list", "have a spare ready: vmhold drive list shows SPARE", "what counts as slow is in the configuration: io.slow_drive_factor, io.slow_drive_seconds"],
        urgency: "within days",
        clears: "it is as fast as its peers again, or out",
        parameters: ["pool", "drive", "latency_ms", "usual_ms"],
    }
    1051 JOURNAL_LEG_LOST Error, exit Failed, http 503, since "0.1.0" {
        what: "The journal lost one of its legs and runs on the other.",
        why: "A write or flush to that leg failed. Every acknowledged write is on the leg that is left; there is no second copy until the data is destaged to stripes.",
        act: ["see which: vmhold status", "mend or replace its device at the same path, then fill it anew: vmhold journal resilver"],
        urgency: "now",
        clears: "both legs are in use again",
        parameters: ["leg", "reason"],
    }
    1052 JOURNAL_LATCHED Error, exit Failed, http 503, since "0.1.0" {
        what: "The journal has no leg left and acknowledges nothing any more.",
        why: "The last leg failed to store a record. What was acknowledged before is safe as far as that leg is readable; acknowledging more would be a lie, so writes are refused until a restart has checked the journal.",
        act: ["mend the device of the journal", "restart: vmhold quickstart resume, or restart the service"],
        urgency: "now: guests cannot write",
        clears: "a restart has read and checked the journal",
        parameters: ["leg", "reason"],
    }
    1053 JOURNAL_DAMAGED Error, exit Failed, http 503, since "0.1.0" {
        what: "A record in the middle of the journal is damaged.",
        why: "Records behind it were acknowledged, so it is not the torn end of a crash. The other leg is used if it has the record; without one, the range the record covers is blocked if its header is intact, otherwise the store stops and names the operations that may be gone.",
        act: ["bring back the other leg of the journal if there is one", "restore the files named from a copy"],
        urgency: "now",
        clears: "the range is overwritten, or the record was found on another leg",
        parameters: ["leg", "sequence", "file", "offset_bytes", "length_bytes"],
    }
    1054 JOURNAL_FOREIGN_LEG Error, exit Refused, http 409, since "0.1.0" {
        what: "A journal leg is blank, older, or belongs to another pool.",
        why: "The root of the pool says which incarnation of each leg is valid. A leg that does not match may lack acknowledged writes, so it is not read as if it were right.",
        act: ["bring back the right device", "if its writes are known to be lost, say so: vmhold serve --accept-journal-loss"],
        urgency: "now: the store does not start without it",
        clears: "the right leg is back, or the loss was accepted by command",
        parameters: ["leg", "found", "expected"],
    }
    1055 JOURNAL_FULL Warning, exit Failed, http 503, since "0.1.0" {
        what: "The journal is full; writes wait for the drives.",
        why: "Writes come in faster than stripes can be written. Nothing is lost; clients are slowed to the speed of the drives.",
        act: ["nothing if it is short", "see what the drives do: vmhold status", "a larger journal rides out longer bursts"],
        urgency: "none if it passes within minutes",
        clears: "less than half of the journal is used",
        parameters: ["used_percent"],
    }
    1056 JOURNAL_REPLAYED Info, exit Failed, http 503, since "0.1.0" {
        what: "The journal was read and replayed after a stop without warning.",
        why: "The process was killed, crashed, or lost power. All acknowledged operations were found, checked and applied.",
        act: ["nothing"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["records", "bytes", "seconds"],
    }
    1061 CLEANER_BEHIND Warning, exit Failed, http 503, since "0.1.0" {
        what: "The cleaner frees space slower than clients use it.",
        why: "The pool is nearly full and overwritten at random, so every stripe must be emptied before it is written again. Clients are slowed to the speed of the cleaner.",
        act: ["delete what is not needed, or add drives", "keep at least 15 % free"],
        urgency: "within hours",
        clears: "free stripes are above the low mark again",
        parameters: ["pool", "free_stripes"],
    }
    1071 FORMAT_UNKNOWN Error, exit Refused, http 409, since "0.1.0" {
        what: "The drives carry a format this version does not know.",
        why: "They were written by a newer version. Nothing is read or written that is not understood.",
        act: ["run the version that wrote them, or a newer one"],
        urgency: "nothing was changed",
        clears: "a version that knows the format is started",
        parameters: ["found_version", "known_version"],
    }
    1081 DRIVE_JOINED Info, exit Failed, http 503, since "0.1.0" {
        what: "A drive joined the pool.",
        why: "It was added, or took the place of a drive that is out. New stripes use it from now on; what it should hold of older ones is filled in while the pool serves.",
        act: ["nothing has to be done; see it at work: vmhold pool show POOL --map"],
        urgency: "none",
        clears: "it is a report",
        parameters: ["pool", "slot"],
    }
    1082 DRIVE_FILLED Info, exit Failed, http 503, since "0.1.0" {
        what: "A drive that took the place of another holds everything it should.",
        why: "Every stripe that has a unit in its slot has that unit there again, so the pool survives as many further losses as before.",
        act: ["nothing has to be done"],
        urgency: "none",
        clears: "it is a report",
        parameters: ["pool", "slot"],
    }
    1083 POOL_EXPANDED Info, exit Failed, http 503, since "0.1.0" {
        what: "Drives joined the pool: it is larger.",
        why: "The drives were examined and added while the pool served. New stripes use them at once; old stripes stay where they are, and space evens out as data is written over and cleaned.",
        act: ["nothing has to be done; see it at work: vmhold pool show POOL --map"],
        urgency: "none",
        clears: "it is a report",
        parameters: ["pool", "drives"],
    }
    1084 DRIVE_RETIRED Info, exit Failed, http 503, since "0.1.0" {
        what: "A drive was retired: another one has its slot.",
        why: "Everything the drive held was copied to the other one while both were written, so the pool was as redundant as before at every moment. The old drive is not used any more.",
        act: ["the old drive can be pulled: vmhold drive list"],
        urgency: "none",
        clears: "it is a report",
        parameters: ["pool", "slot"],
    }
    1085 RETIRING_ENDED Warning, exit Failed, http 503, since "0.1.0" {
        what: "A drive that was being retired keeps its slot.",
        why: "That was asked for, or the drive that was to take its slot failed or was not there when the store started. Nothing was lost: the old drive was a full member all the time.",
        act: ["see the drives: vmhold drive list", "retire it behind another drive: vmhold drive retire POOL/SLOT --with PATH"],
        urgency: "none, unless the old drive is failing",
        clears: "it is a report",
        parameters: ["pool", "slot", "reason"],
    }
    1086 DRIVE_RETIRING Info, exit Failed, http 503, since "0.1.0" {
        what: "A drive is being retired.",
        why: "Another drive is filled with what it holds and takes its slot then. Until then the old drive is a full member, and every new stripe is written to both.",
        act: ["nothing has to be done; see it at work: vmhold job list", "call it off: vmhold job cancel JOB"],
        urgency: "none",
        clears: "it is a report",
        parameters: ["pool", "slot"],
    }
}
