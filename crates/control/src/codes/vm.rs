//! 3xxx: VMs and their snapshots.

codes! {
    3001 VM_NOT_FOUND Error, exit NotFound, http 404, since "0.1.0" {
        what: "There is no VM of that name.",
        why: "The name is misspelt, its files were removed, or they are named in a way that is not recognised as a VM.",
        act: ["list them: vmhold vm list", "assign a file by hand: vmhold vm assign DATASTORE PATH VM"],
        urgency: "nothing was changed",
        clears: "an existing VM is named",
        parameters: ["vm"],
    }
    3002 VM_EXISTS Error, exit Refused, http 409, since "0.1.0" {
        what: "There is already a VM, or a file of one, of that name.",
        why: "Two VMs of the same name in a datastore could not be told apart, and a clone never goes over files that are there.",
        act: ["choose another name", "see the present one: vmhold vm list"],
        urgency: "nothing was changed",
        clears: "another name is used",
        parameters: ["vm"],
    }
    3003 VM_AMBIGUOUS Error, exit Usage, http 400, since "0.1.0" {
        what: "Several datastores have a VM of that name.",
        why: "The name alone does not say which one is meant.",
        act: ["name the datastore, too: vmhold vm show DATASTORE/VM"],
        urgency: "nothing was changed",
        clears: "the datastore is named",
        parameters: ["vm"],
    }
    3021 SNAPSHOT_NOT_FOUND Error, exit NotFound, http 404, since "0.1.0" {
        what: "The VM has no snapshot of that name.",
        why: "The name is misspelt, or the snapshot was deleted.",
        act: ["list them: vmhold vm snapshot list VM"],
        urgency: "nothing was changed",
        clears: "an existing snapshot is named",
        parameters: ["vm", "snapshot"],
    }
    3022 SNAPSHOT_EXISTS Error, exit Refused, http 409, since "0.1.0" {
        what: "The VM has a snapshot of that name already.",
        why: "A snapshot is never replaced: somebody may count on it.",
        act: ["choose another name, or none", "see the present ones: vmhold vm snapshot list VM"],
        urgency: "nothing was changed",
        clears: "another name is used",
        parameters: ["vm", "snapshot"],
    }
    3031 VM_NOT_CHANGED Error, exit Refused, http 409, since "0.1.0" {
        what: "What was asked of the VM could not be done.",
        why: "A file or folder of it was removed or changed meanwhile, or the pool has no room.",
        act: ["look at it: vmhold vm show VM", "then try again"],
        urgency: "nothing was changed: all files of a VM are changed together or none",
        clears: "it is asked again and goes through",
        parameters: ["vm", "reason"],
    }
    3041 SNAPSHOT_TAKEN Info, exit Failed, http 503, since "0.1.0" {
        what: "A snapshot of a VM was taken.",
        why: "Somebody asked for it; those that a schedule takes are not noted one by one.",
        act: ["see them: vmhold vm snapshot list VM"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["vm"],
    }
    3042 SNAPSHOT_DELETED Info, exit Failed, http 503, since "0.1.0" {
        what: "A snapshot of a VM was deleted.",
        why: "Somebody asked for it; what only it held is given back.",
        act: ["who did it: vmhold audit list"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["vm"],
    }
    3043 VM_ROLLED_BACK Info, exit Failed, http 503, since "0.1.0" {
        what: "A VM, or one file of it, has the content of a snapshot again.",
        why: "Somebody asked for it and confirmed it; what was written since the snapshot is gone.",
        act: ["who did it: vmhold audit list"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["vm"],
    }
    3044 VM_CLONED Info, exit Failed, http 503, since "0.1.0" {
        what: "A VM was made from a snapshot of another.",
        why: "Somebody asked for it; both share blocks until one of them writes them over.",
        act: ["look at it: vmhold vm show VM"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["vm"],
    }
    3045 VM_LIMITED Info, exit Failed, http 503, since "0.1.0" {
        what: "The limits of a VM were changed.",
        why: "Somebody asked for it; they are in force from then on.",
        act: ["see and change them: vmhold vm qos VM", "who did it: vmhold audit list"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["vm"],
    }
    3046 VM_RENAMED Info, exit Failed, http 503, since "0.1.0" {
        what: "A VM is called otherwise.",
        why: "Somebody asked for it; its files are where they were.",
        act: ["who did it: vmhold audit list"],
        urgency: "none",
        clears: "it is an event, not a condition",
        parameters: ["vm"],
    }
}
