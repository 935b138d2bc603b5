//! Whom the witness answers: sites that enrolled, and invitations that nobody has used yet.
//!
//! A site is known by the fingerprint of its certificate. It is let in once, by a secret of
//! which only the digest is kept here, and taken off the roll to shut it out: what is pinned
//! needs no list of revocations.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base::SiteId;
use control::access::{Digest, Secret};
use control::tls::Fingerprint;
use control::{Problem, codes};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use witness::wire::NAME_BYTES_MAX;

use crate::folder::{Folder, files, read, take_away, unusable, write_json};

/// How long a join token is good.
pub(crate) const INVITED_FOR: SignedDuration = SignedDuration::from_hours(24);
/// Sites and invitations of one witness.
const ENTRIES_MAX: usize = 4096;

/// A site that may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub name: String,
    pub site: SiteId,
    pub enrolled_at: Timestamp,
}

/// A site as its file says.
#[derive(Serialize, Deserialize)]
struct MemberFile {
    name: String,
    site: String,
    fingerprint: Fingerprint,
    enrolled_at: Timestamp,
}

#[derive(Clone, Serialize, Deserialize)]
struct Invitation {
    name: String,
    secret: Digest,
    until: Timestamp,
}

/// See the module's head.
pub(crate) struct Roll {
    sites: PathBuf,
    invitations: PathBuf,
    members: BTreeMap<Fingerprint, Member>,
    invited: BTreeMap<String, Invitation>,
}

impl Roll {
    /// Reads it. A file that cannot be read is an error: a forgotten site would be shut out.
    pub fn open(folder: &Folder) -> Result<Self, Problem> {
        let (sites, invitations) = (folder.sites(), folder.invitations());
        let mut roll = Self { sites, invitations, members: BTreeMap::new(), invited: BTreeMap::new() };
        for path in files(&roll.sites).map_err(|error| unusable(&roll.sites, &error))? {
            let Some(MemberFile { name, site, fingerprint, enrolled_at }) = read(&path)? else { continue };
            let site = site
                .parse()
                .map_err(|_| Problem::new(&codes::CONFIG_UNREADABLE, format!("{} names no site", path.display())))?;
            roll.members.insert(fingerprint, Member { name, site, enrolled_at });
        }
        for path in files(&roll.invitations).map_err(|error| unusable(&roll.invitations, &error))? {
            let invitation: Option<Invitation> = read(&path)?;
            roll.invited.extend(invitation.map(|invitation| (invitation.name.clone(), invitation)));
        }
        Ok(roll)
    }

    /// Who shows this certificate.
    pub fn member(&self, shown: Fingerprint) -> Option<&Member> {
        self.members.get(&shown)
    }

    /// Everybody, by name.
    pub fn members(&self) -> Vec<Member> {
        let mut members: Vec<Member> = self.members.values().cloned().collect();
        members.sort_by(|left, right| left.name.cmp(&right.name));
        members
    }

    /// A secret that lets a site of this name in until [`INVITED_FOR`] from now. An earlier one
    /// for the name is good no more.
    pub fn invite(&mut self, name: &str, now: Timestamp) -> Result<(Secret, Timestamp), Problem> {
        check_name(name)?;
        self.forget_expired(now);
        let replaces = self.invited.contains_key(name);
        if self.members.len() + self.invited.len() - usize::from(replaces) >= ENTRIES_MAX {
            return Err(Problem::new(
                &codes::CONFLICT,
                format!("the witness knows {ENTRIES_MAX} sites, the most it may"),
            ));
        }
        let secret = Secret::random()?;
        let until = now.saturating_add(INVITED_FOR).unwrap_or(Timestamp::MAX);
        let invitation = Invitation { name: name.to_owned(), secret: secret.digest(), until };
        write_json(&self.invitation_file(name), &invitation)?;
        self.invited.insert(name.to_owned(), invitation);
        Ok((secret, until))
    }

    /// Invitations that let nobody in any more take no place either. A file that comes back after a
    /// crash lets nobody in, so nothing is waited for.
    fn forget_expired(&mut self, now: Timestamp) {
        let expired: Vec<String> =
            self.invited.values().filter(|one| one.until <= now).map(|one| one.name.clone()).collect();
        for name in expired {
            let _ = std::fs::remove_file(self.invitation_file(&name));
            self.invited.remove(&name);
        }
    }

    /// Lets a site in. The secret is used up before the site is on the roll, so it never lets
    /// two in; who lost the answer asks again with the same certificate and is told yes.
    pub fn enrol(
        &mut self,
        site: SiteId,
        secret: &Secret,
        shown: Fingerprint,
        now: Timestamp,
    ) -> Result<Member, Problem> {
        if let Some(known) = self.members.get(&shown).filter(|known| known.site == site) {
            return Ok(known.clone());
        }
        let refused = |why: &str| Problem::new(&codes::INVITATION_REFUSED, "the join token is not good").why(why);
        if self.members.contains_key(&shown) {
            return Err(refused("another site shows this certificate"));
        }
        let digest = secret.digest();
        let invitation = self.invited.values().find(|one| one.secret == digest).cloned();
        let invitation = invitation.ok_or_else(|| refused("it was used already, or is none of this witness's"))?;
        if invitation.until <= now {
            return Err(refused("it is older than a day"));
        }
        let name = invitation.name;
        if let Some(other) = self.members.values().find(|one| (one.name == name) != (one.site == site)) {
            let why = if other.name == name {
                "another site has this name; remove that one first"
            } else {
                "this site is known by another name; remove that one first"
            };
            return Err(refused(why));
        }
        let path = self.invitation_file(&name);
        take_away(&path).map_err(|error| unusable(&path, &error))?;
        self.invited.remove(&name);
        let member = Member { name: name.clone(), site, enrolled_at: now };
        let file = MemberFile { name, site: site.to_string(), fingerprint: shown, enrolled_at: now };
        write_json(&self.sites.join(format!("{}.json", file.name)), &file)?;
        // With a new certificate the old one is good no more.
        self.members.retain(|_, one| one.site != site);
        self.members.insert(shown, member.clone());
        Ok(member)
    }

    /// Takes a site off the roll, and an invitation for its name. It is shut out at once,
    /// whatever the disk says; that it stays so is said when it is durable, and until then it can
    /// be asked again. The invitation goes first: it could let the site in again.
    pub fn remove(&mut self, name: &str) -> Result<(), Problem> {
        check_name(name)?;
        let files = [self.invitation_file(name), self.sites.join(format!("{name}.json"))];
        let known = self.members.values().any(|one| one.name == name) || self.invited.contains_key(name);
        if !known && !files.iter().any(|path| path.exists()) {
            return Err(Problem::new(&codes::SITE_NOT_FOUND, format!("the witness has no site named {name:?}")));
        }
        self.members.retain(|_, one| one.name != name);
        self.invited.remove(name);
        for path in files {
            take_away(&path).map_err(|error| unusable(&path, &error))?;
        }
        Ok(())
    }

    fn invitation_file(&self, name: &str) -> PathBuf {
        self.invitations.join(format!("{name}.json"))
    }
}

/// Names are names of files, too.
fn check_name(name: &str) -> Result<(), Problem> {
    let clean = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if clean && (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(Problem::new(&codes::BAD_INPUT, format!("{name:?} is no name of a site"))
        .why(format!("it has 1 to {NAME_BYTES_MAX} small letters, digits and -")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SiteId = SiteId([1; 16]);
    const B: SiteId = SiteId([2; 16]);

    fn shown(byte: &str) -> Fingerprint {
        byte.repeat(32).parse().unwrap()
    }

    fn later(hours: i64) -> Timestamp {
        "2026-11-26T09:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hours)
    }

    #[test]
    fn a_token_lets_one_site_in_once_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let (secret, _) = Roll::open(&folder).unwrap().invite("site-a", later(0)).unwrap();
        let mut roll = Roll::open(&folder).unwrap();
        roll.enrol(A, &secret, shown("aa"), later(1)).unwrap();
        assert_eq!(Roll::open(&folder).unwrap().member(shown("aa")).unwrap().site, A);
        // the answer was lost: the same site asks again
        roll.enrol(A, &secret, shown("aa"), later(1)).unwrap();
        for (site, certificate) in [(A, "bb"), (B, "aa"), (B, "bb")] {
            let again = roll.enrol(site, &secret, shown(certificate), later(1)).unwrap_err();
            assert_eq!(again.code(), &codes::INVITATION_REFUSED);
        }
    }

    #[test]
    fn old_and_replaced_and_foreign_tokens_let_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut roll = Roll::open(&Folder::open(dir.path()).unwrap()).unwrap();
        let (replaced, _) = roll.invite("site-a", later(0)).unwrap();
        let (secret, _) = roll.invite("site-a", later(0)).unwrap();
        for (secret, at) in [(&replaced, 0), (&Secret::random().unwrap(), 0), (&secret, 24)] {
            assert!(roll.enrol(A, secret, shown("aa"), later(at)).is_err());
        }
        assert!(roll.enrol(A, &secret, shown("aa"), later(23)).is_ok());
    }

    #[test]
    fn nobody_takes_the_name_or_the_place_of_another_site() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let mut roll = Roll::open(&folder).unwrap();
        let enrol = |roll: &mut Roll, name: &str, site, certificate| {
            let (secret, _) = roll.invite(name, later(0)).unwrap();
            roll.enrol(site, &secret, shown(certificate), later(0))
        };
        enrol(&mut roll, "site-a", A, "aa").unwrap();
        assert!(enrol(&mut roll, "site-b", B, "aa").is_err());
        assert!(enrol(&mut roll, "site-a", B, "bb").is_err());
        assert!(enrol(&mut roll, "site-b", A, "bb").is_err());
        // a new certificate of the same site takes the place of the old one
        enrol(&mut roll, "site-a", A, "cc").unwrap();
        assert!(roll.member(shown("aa")).is_none() && roll.member(shown("cc")).is_some());
        roll.remove("site-a").unwrap();
        assert!(Roll::open(&folder).unwrap().member(shown("cc")).is_none());
        assert_eq!(roll.remove("site-a").unwrap_err().code(), &codes::SITE_NOT_FOUND);
        enrol(&mut roll, "site-a", B, "bb").unwrap();
    }

    #[test]
    fn expired_invitations_take_no_place() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let mut roll = Roll::open(&folder).unwrap();
        roll.invite("site-a", later(0)).unwrap();
        let old = roll.invited["site-a"].clone();
        for number in 1..ENTRIES_MAX {
            roll.invited.insert(format!("site-{number}"), Invitation { name: format!("site-{number}"), ..old.clone() });
        }
        assert!(roll.invite("one-more", later(1)).is_err(), "all are good");
        assert!(roll.invite("site-a", later(1)).is_ok(), "it takes the place of its own");
        roll.invite("one-more", later(24)).unwrap();
        assert_eq!(roll.invited.len(), 2, "site-a was asked anew an hour later");
        assert_eq!(Roll::open(&folder).unwrap().invited.len(), 2);
    }

    /// A disk that fails must not leave a removed site in, nor a token that lets it in again.
    #[test]
    fn a_removed_site_is_shut_out_even_if_the_disk_fails() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let mut roll = Roll::open(&folder).unwrap();
        let (secret, _) = roll.invite("site-a", later(0)).unwrap();
        roll.enrol(A, &secret, shown("aa"), later(0)).unwrap();
        roll.invite("site-a", later(0)).unwrap();
        // What is no file cannot be taken away.
        let file = folder.sites().join("site-a.json");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(roll.remove("site-a").is_err(), "it is not durable");
        assert!(roll.member(shown("aa")).is_none() && roll.invited.is_empty(), "and holds all the same");
        assert!(!roll.invitation_file("site-a").exists());
        assert!(roll.remove("site-a").is_err(), "asked again, it says so again");
        std::fs::remove_dir(&file).unwrap();
        assert_eq!(roll.remove("site-a").unwrap_err().code(), &codes::SITE_NOT_FOUND);
    }

    #[test]
    fn names_stay_within_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let mut roll = Roll::open(&Folder::open(dir.path()).unwrap()).unwrap();
        for name in ["", "..", "a/b", "A", "ä", &"x".repeat(65)] {
            assert!(roll.invite(name, later(0)).is_err() && roll.remove(name).is_err(), "{name}");
        }
    }
}
