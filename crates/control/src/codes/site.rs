//! 4xxx: sites, replication, witness.

codes! {
    4011 OUT_OF_SYNC Warning, exit Failed, http 409, since "0.1.0" {
        what: "The two sites do not hold the same.",
        why: "One site was away for longer than the out-of-sync delay, or replication is paused; the primary went on alone. Everything acknowledged is at the primary. If that is lost too, what was written since is lost.",
        act: ["see what is away: vmhold replication status", "bring the other site back: it is made equal by itself"],
        urgency: "soon: a second loss would lose writes",
        clears: "both sites hold the same again",
        parameters: ["site", "reason"],
    }
    4012 NOT_PRIMARY Error, exit Refused, http 409, since "0.1.0" {
        what: "This site does not serve now.",
        why: "It is one of two sites, and the other one is primary; or it is about to become primary.",
        act: ["ask the other site", "see which of them serves: vmhold replication status"],
        urgency: "nothing was changed",
        clears: "this site is primary, or the other one is asked",
        parameters: ["site"],
    }
    4013 ROLE_CHANGED Info, exit Failed, http 500, since "0.1.0" {
        what: "How the two sites stand has changed.",
        why: "The record at the witness has a new version: another primary, in sync or not any more.",
        act: ["see how they stand: vmhold replication status"],
        urgency: "none",
        clears: "it happened once",
        parameters: ["site", "office", "epoch", "in_sync"],
    }
    4014 SITE_LINK_LOST Warning, exit Unreachable, http 503, since "0.1.0" {
        what: "The other site is not reached.",
        why: "It is down, the network between the sites is cut, or what answers there is not the site or pool that this one was paired with. Writes wait for at most the out-of-sync delay; then the primary goes on alone.",
        act: ["see why: vmhold replication status", "look at the other site: vmhold status, there"],
        urgency: "soon: a second loss would stop the datastore or lose writes",
        clears: "the sites have met again",
        parameters: ["address", "reason"],
    }
    4015 SITE_SERVES Info, exit Failed, http 500, since "0.1.0" {
        what: "This site serves the datastores of the pair.",
        why: "It is primary, and has opened its doors.",
        act: ["see how the pair stands: vmhold replication status"],
        urgency: "none",
        clears: "it happened once",
        parameters: ["address"],
    }
    4016 ADDRESS_NOT_MOVED Error, exit Failed, http 503, since "0.1.0" {
        what: "The address of the datastores was not brought to this machine, or not taken away from it.",
        why: "The hook that moves it failed or took too long. Without the address no client finds this site; it is tried again until it works.",
        act: ["run it by hand and see: HOOK up IP PORT", "see what it says in the log of the server"],
        urgency: "now: clients are not answered",
        clears: "the hook succeeds",
        parameters: ["address", "reason"],
    }
    4017 SWITCHOVER_REFUSED Error, exit Refused, http 409, since "0.1.0" {
        what: "This site does not hand over now.",
        why: "A planned change of primary loses nothing and takes less than a second, so it is only begun when both sites hold the same, and the other site and the witness answer.",
        act: ["see what is missing: vmhold replication status", "wait until failover is READY there, and ask again"],
        urgency: "nothing was changed",
        clears: "failover is READY",
        parameters: ["site", "reason"],
    }
    4018 NOT_REPLACED Error, exit Refused, http 409, since "0.1.0" {
        what: "The other site is not replaced.",
        why: "A site is replaced by the primary, when the copy at the other one is given up: it is away, or replication is paused. While both hold the same, or the other one is being made equal, there is nothing to replace.",
        act: ["see how they stand: vmhold replication status", "if the other site is there and is to be replaced all the same: vmhold replication pause POOL, then again"],
        urgency: "nothing was changed",
        clears: "this site is primary, and alone",
        parameters: ["site", "reason"],
    }
    4019 SITE_REPLACED Info, exit Failed, http 500, since "0.1.0" {
        what: "Another site has taken the place of the other one of the pair.",
        why: "An administrator said so. What the site before held is given up; the new one is given everything.",
        act: ["see how the pair stands: vmhold replication status"],
        urgency: "none",
        clears: "it happened once",
        parameters: ["site"],
    }
    4020 COPY_NEVER_WHOLE Error, exit Refused, http 409, since "0.1.0" {
        what: "This site has never held a whole copy.",
        why: "It is new, and what the primary holds was not copied completely yet. Made primary it would serve a part, or nothing.",
        act: ["bring the other site back: the copy goes on by itself", "if the other site is lost for good: take what clients or backups hold; nothing here is complete"],
        urgency: "now, if the other site is down",
        clears: "the first copy is complete",
        parameters: ["site"],
    }
    4021 WITNESS_LOST Warning, exit Unreachable, http 503, since "0.1.0" {
        what: "The witness does not answer.",
        why: "It is not running, cannot be reached, or is another one than this site knows. Nothing stops by that: datastores are served and stay in sync, but no site can take over by itself until it answers.",
        act: ["see whether it runs, on its machine: vmhold witness status --dir DIR", "check the way to it: vmhold witness test"],
        urgency: "soon: a second loss would stop datastores",
        clears: "the witness answers",
        parameters: ["address", "reason"],
    }
    4023 WITNESS_RECORDS_UNUSABLE Error, exit Failed, http 503, since "0.1.0" {
        what: "The witness cannot use its records.",
        why: "A record is damaged, was made by a later version, or could not be written durably. The witness decides nothing that it cannot keep, and takes no damaged record for a missing one.",
        act: ["check the disk of the witness's folder: space, rights, errors", "restore the folder from a copy: sites notice an old one, and nothing is decided before both have told what they know"],
        urgency: "soon: a second loss would stop datastores",
        clears: "the records can be read and written",
        parameters: ["path", "reason"],
    }
    4025 NOT_ENROLLED Error, exit NotAllowed, http 403, since "0.1.0" {
        what: "The witness does not know this site.",
        why: "The site was never added, was removed, or was added again with another certificate since.",
        act: ["on the witness's machine: vmhold witness invite SITE --dir DIR", "then on the site: vmhold witness add TOKEN"],
        urgency: "now, if the site holds a replicated datastore",
        clears: "the site is added",
        parameters: ["site"],
    }
    4026 INVITATION_REFUSED Error, exit NotAllowed, http 403, since "0.1.0" {
        what: "The join token is not good.",
        why: "It was used already, is older than a day, was mistyped, or is for a name that another site has.",
        act: ["make another on the witness's machine: vmhold witness invite SITE --dir DIR"],
        urgency: "nothing was changed",
        clears: "a fresh token is used",
        parameters: ["site"],
    }
    4027 SITE_NOT_FOUND Error, exit NotFound, http 404, since "0.1.0" {
        what: "The witness has no site of that name.",
        why: "The name is misspelt, or the site was removed.",
        act: ["list them: vmhold witness status"],
        urgency: "nothing was changed",
        clears: "an existing site is named",
        parameters: ["site"],
    }
    4028 WITNESS_UNKNOWN Error, exit NotFound, http 404, since "0.1.0" {
        what: "This folder belongs to no witness and to no site that has one.",
        why: "No witness was ever served from it, and no site in it was added to one.",
        act: ["name the folder: --dir DIR", "add this site to a witness: vmhold witness add TOKEN", "run a witness: vmhold witness serve --listen ADDR"],
        urgency: "nothing was changed",
        clears: "the folder is named",
        parameters: ["path"],
    }
    4041 SITES_DIFFER Error, exit Failed, http 409, since "0.1.0" {
        what: "The two sites were found to differ although the record said that they hold the same.",
        why: "An integrity check compared them at one operation, and what one of them holds is wrong: damage that no drive reports, a defect, or a change behind the back of replication. The primary has gone on alone; what it holds is what clients see. The other site is made equal anew, all of it; what both held stays as evidence.",
        act: ["see what differs: vmhold replication verify POOL --last", "look at both sites' events and drives for the time since the last clean check", "when it is understood, at both sites: vmhold replication evidence POOL --forget"],
        urgency: "now: find out which site is wrong before the evidence is let go of",
        clears: "a later check finds both the same, and the evidence is let go of",
        parameters: ["pool", "files", "rows"],
    }
    4042 NOT_CHECKED Warning, exit Failed, http 409, since "0.1.0" {
        what: "It is not known whether both sites hold the same.",
        why: "No integrity check has come to its end yet, or the last one is older than twice its schedule. A check runs by itself after each resync and once a week; it ends early if the sites part.",
        act: ["check now, at the primary: vmhold replication verify POOL --wait", "see what the last one came to: vmhold replication verify POOL --last"],
        urgency: "soon: damage at the other site would be met only when it is needed",
        clears: "a check comes to its end",
        parameters: ["pool", "reason"],
    }
    4043 CHECK_REFUSED Error, exit Refused, http 409, since "0.1.0" {
        what: "No integrity check begins now.",
        why: "Both sites are compared at the primary, while they are in sync and linked, one check at a time. Where they are known to differ there is nothing to be found out.",
        act: ["see how they stand: vmhold replication status", "ask again at the primary when both are in sync"],
        urgency: "nothing was changed",
        clears: "the sites are in sync, and no check is running",
        parameters: ["pool", "reason"],
    }
    4044 CHECK_CLEAN Info, exit Failed, http 500, since "0.1.0" {
        what: "Both sites hold the same.",
        why: "An integrity check compared them at one operation and found no difference.",
        act: ["keep the receipt: vmhold replication receipt POOL --save FILE"],
        urgency: "none",
        clears: "it happened once",
        parameters: ["pool", "files", "rows"],
    }
    4045 CHECK_NOT_COMPLETED Warning, exit Failed, http 409, since "0.1.0" {
        what: "An integrity check ended before all was compared.",
        why: "The sites parted, one changed its role or stopped, or more was changed meanwhile than can be remembered. Nothing is known of what was not compared; it is tried again by itself.",
        act: ["see how they stand: vmhold replication status", "check again: vmhold replication verify POOL --wait"],
        urgency: "none by itself",
        clears: "it happened once",
        parameters: ["pool", "reason"],
    }
    4046 RECEIPT_NOT_GOOD Error, exit Failed, http 400, since "0.1.0" {
        what: "This is no good receipt.",
        why: "Its words were changed, a signature is not of these words or not by the certificate beside it, or the two sites of which it speaks have not both signed it.",
        act: ["fetch it anew from the store: vmhold replication receipt POOL --save FILE", "check both sites again: vmhold replication verify POOL --wait"],
        urgency: "it proves nothing",
        clears: "a receipt that both sites signed is looked at",
        parameters: ["file", "reason"],
    }
}
