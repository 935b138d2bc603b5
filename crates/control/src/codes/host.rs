//! 5xxx: hosts and write acceleration.

codes! {
    5001 FLASH_UNUSABLE Error, exit Refused, http 409, since "0.1.0" {
        what: "The flash of a host cannot be used.",
        why: "It is blank, holds something else, has no room, or cannot be opened; the message says which. Nothing on it was changed.",
        act: ["look at what it holds before anything else", "a blank one becomes a flash with: vmhold host serve --flash PATH --format"],
        urgency: "now, if disks of VMs are on it",
        clears: "the flash can be opened",
        parameters: ["path", "reason"],
    }
    5002 BACKING_UNUSABLE Error, exit Refused, http 409, since "0.1.0" {
        what: "A backing store cannot be used.",
        why: "It is not there, has shrunk, is held by another agent, or cannot be opened; the message says which. Dirty data for it stays on flash.",
        act: ["check path and rights: ls -l PATH", "bring it back, then start the agent again"],
        urgency: "now, if a VM uses it",
        clears: "the backing store can be opened",
        parameters: ["path", "reason"],
    }
    5012 FLOW_CONTROL Warning, exit Failed, http 503, since "0.1.0" {
        what: "Writes of a VM are slowed so that the destager can catch up.",
        why: "The VM has been writing faster than the backing store takes it, and more than half of its log is in use. No write is lost or refused.",
        act: ["wait: bursts end", "give the disk a larger log: detach it, attach it with --log SIZE", "see: vmhold accel flow-control"],
        urgency: "none, unless it lasts",
        clears: "less than half of the log is in use",
        parameters: ["disk", "log_used_ratio"],
    }
    5041 BACKING_FAILS Error, exit Failed, http 503, since "0.1.0" {
        what: "The backing store of a disk does not do what it is asked.",
        why: "It is gone, read-only, or answers with errors. Under wb writes are absorbed until the log is full; then they wait. Under wt they wait. Nothing acknowledged is lost.",
        act: ["bring the backing store back: everything goes on by itself", "see how long the log lasts: vmhold accel status"],
        urgency: "now: VMs stop when the log is full",
        clears: "the backing store takes writes again",
        parameters: ["disk", "fault", "seconds"],
    }
    5042 FLASH_FAILS Error, exit Failed, http 503, since "0.1.0" {
        what: "The flash of a host fails.",
        why: "Writes under wb wait, as they cannot be made durable. What is dirty is in memory and is destaged from there as long as the agent runs.",
        act: ["do not stop the agent before nothing is dirty: vmhold accel status", "then replace the flash and attach the disks again"],
        urgency: "now",
        clears: "the flash takes writes again, or the disks are attached to another one",
        parameters: ["disk", "fault"],
    }
    5043 HOST_LOG_DAMAGED Error, exit Failed, http 503, since "0.1.0" {
        what: "The log of a disk cannot be read back, so the disk is not served.",
        why: "Acknowledged writes in it may be damaged. Serving the backing store without them would hand the VM old data.",
        act: ["do not start the VM from the backing store: it may lack acknowledged writes", "keep flash and backing store as they are, and restore the disk from a backup"],
        urgency: "now",
        clears: "the flash can be read, or the disk is restored elsewhere",
        parameters: ["disk", "reason"],
    }
    5051 POLICY_IN_FORCE Info, exit Failed, http 503, since "0.1.0" {
        what: "An acceleration policy is in force.",
        why: "It was asked for, and everything it needs was done: from wb to wt all dirty data was drained first.",
        act: ["nothing"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["disk", "policy"],
    }
}
