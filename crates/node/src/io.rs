//! How drives are shared: settings and profiles from files, and what became of them in the
//! words of the API.
//!
//! A profile file is TOML, a list of `[[profile]]`. `name`, `models` and `class` are
//! needed; everything else has the default of its class:
//!
//! ```toml
//! [[profile]]
//! name = "my flash"
//! models = ["ACME 1000*"]     # `*` stands for anything, case does not count
//! class = "flash"             # flash, disk, memory
//! depth = 64                  # requests the drive is given at a time
//! background_depth = 8        # of these, for background work while clients are active
//! background_depth_idle = 32  # and while none is
//! io_bytes_max = 524288       # longer requests are cut
//! write_pattern = "turns"     # or "parallel": whether bulk writes go drive after drive
//! turn_bytes = 8388608        # how much one writes in its turn
//! settle_ms = 2               # how long it stays slow after that
//! user_read_timeout_ms = 5    # later reads are also asked from the other drives; 0: never
//! metadata_read_timeout_ms = 5
//! read_limit_ms = 2000        # a read is given up
//! write_limit_ms = 10000      # a write or flush that takes longer costs the membership
//! request_cost_bytes = 16384  # what a request costs besides its bytes
//! write_cost_percent = 200    # what a written byte costs, a read one being 100
//! ```

use std::path::Path;
use std::time::Duration;

use control::pool::{DriveIo, PoolIo, PrincipalIo, SlowDrive};
use control::{Problem, codes};
use raid::{DriveClass, DriveStatus, FlowSettings, Group, Principal, Profile, Profiles, SlowSettings, WritePattern};
use serde::Deserialize;

use crate::config::IoConfig;

/// Profiles built in: file name and text.
const BUILT_IN: [(&str, &str); 4] = [
    ("nvme.toml", include_str!("../profiles/nvme.toml")),
    ("sata.toml", include_str!("../profiles/sata.toml")),
    ("disk.toml", include_str!("../profiles/disk.toml")),
    ("virtual.toml", include_str!("../profiles/virtual.toml")),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    profile: Vec<ProfileEntry>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Class {
    Flash,
    Disk,
    Memory,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pattern {
    Parallel,
    Turns,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileEntry {
    name: String,
    models: Vec<String>,
    class: Class,
    io_bytes_max: Option<u32>,
    depth: Option<u32>,
    background_depth: Option<u32>,
    background_depth_idle: Option<u32>,
    write_pattern: Option<Pattern>,
    turn_bytes: Option<u64>,
    settle_ms: Option<u64>,
    user_read_timeout_ms: Option<u64>,
    metadata_read_timeout_ms: Option<u64>,
    read_limit_ms: Option<u64>,
    write_limit_ms: Option<u64>,
    request_cost_bytes: Option<u32>,
    write_cost_percent: Option<u32>,
}

impl ProfileEntry {
    fn profile(self) -> Profile {
        let class = match self.class {
            Class::Flash => DriveClass::Flash,
            Class::Disk => DriveClass::Disk,
            Class::Memory => DriveClass::Memory,
        };
        let pattern = |pattern| match pattern {
            Pattern::Parallel => WritePattern::Parallel,
            Pattern::Turns => WritePattern::Turns,
        };
        let base = Profile::unknown(class);
        let ms = |value: Option<u64>, default| value.map_or(default, Duration::from_millis);
        Profile {
            name: self.name,
            models: self.models,
            class,
            io_bytes_max: self.io_bytes_max.unwrap_or(base.io_bytes_max),
            depth: self.depth.unwrap_or(base.depth),
            background_depth: self.background_depth.unwrap_or(base.background_depth),
            background_depth_idle: self.background_depth_idle.unwrap_or(base.background_depth_idle),
            write_pattern: self.write_pattern.map_or(base.write_pattern, pattern),
            turn_bytes: self.turn_bytes.unwrap_or(base.turn_bytes),
            settle: ms(self.settle_ms, base.settle),
            user_read_timeout: ms(self.user_read_timeout_ms, base.user_read_timeout),
            metadata_read_timeout: ms(self.metadata_read_timeout_ms, base.metadata_read_timeout),
            read_limit: ms(self.read_limit_ms, base.read_limit),
            write_limit: ms(self.write_limit_ms, base.write_limit),
            request_cost_bytes: self.request_cost_bytes.unwrap_or(base.request_cost_bytes),
            write_cost_percent: self.write_cost_percent.unwrap_or(base.write_cost_percent),
        }
    }
}

/// The profiles in one file.
fn parse(text: &str) -> Result<Vec<Profile>, String> {
    let file: ProfileFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let profiles: Vec<Profile> = file.profile.into_iter().map(ProfileEntry::profile).collect();
    for profile in &profiles {
        if let Some(fault) = profile.fault() {
            return Err(format!("profile \"{}\": {fault}", profile.name));
        }
    }
    Ok(profiles)
}

fn refused(what: String, why: impl ToString) -> Problem {
    Problem::new(&codes::BAD_INPUT, what).why(why.to_string())
}

/// The profiles in the files of a folder, by file name.
fn from_folder(folder: &Path) -> Result<Vec<Profile>, Problem> {
    let cannot = |error: std::io::Error| refused(format!("{} cannot be read", folder.display()), error);
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder).map_err(cannot)?.collect();
    let mut files: Vec<_> = entries.map_err(cannot)?.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut profiles = Vec::new();
    for file in files {
        let read = std::fs::read_to_string(&file).map_err(|error| error.to_string()).and_then(|text| parse(&text));
        let read = read.map_err(|why| refused(format!("{} is not a file of drive profiles", file.display()), why))?;
        profiles.extend(read);
    }
    Ok(profiles)
}

/// What the configuration says, and the defaults for what it does not say.
pub(crate) fn settings(config: Option<&IoConfig>) -> Result<FlowSettings, Problem> {
    let mut settings = FlowSettings::default();
    let config = config.cloned().unwrap_or_default();
    let mut profiles = config.profiles.as_deref().map(from_folder).transpose()?.unwrap_or_default();
    for (name, text) in BUILT_IN {
        profiles.extend(parse(text).map_err(|why| refused(format!("built-in profiles {name}"), why))?);
    }
    settings.profiles = Profiles::new(profiles, Profile::unknown(DriveClass::Flash));
    if let Some(ppm) = config.hedged_reads_ppm {
        settings.hedged_reads_ppm = ppm.min(1_000_000);
    }
    if let Some(quiet_ms) = config.quiet_ms {
        settings.quiet = Duration::from_millis(quiet_ms);
    }
    settings.slow = slow(&config)?;
    for (name, share) in &config.shares {
        let Some(principal) = Principal::named(name) else {
            let known = Principal::ALL.map(Principal::name).join(", ");
            return Err(refused(format!("io.shares: there is no principal \"{name}\""), format!("there are {known}")));
        };
        if !(1..=1_000_000).contains(share) {
            return Err(refused(format!("io.shares: {name} = {share}"), "a share is 1 to 1,000,000"));
        }
        settings.shares = settings.shares.with(principal, *share);
    }
    Ok(settings)
}

/// When a drive is put out for being slow.
fn slow(config: &IoConfig) -> Result<SlowSettings, Problem> {
    let mut slow = SlowSettings::default();
    if let Some(factor) = config.slow_drive_factor {
        if factor != 0 && !(5..=1000).contains(&factor) {
            return Err(refused(format!("io.slow_drive_factor = {factor}"), "it is 5 to 1,000, or 0 for never"));
        }
        slow.factor = factor;
    }
    if let Some(seconds) = config.slow_drive_seconds {
        if !(10..=86_400).contains(&seconds) {
            return Err(refused(format!("io.slow_drive_seconds = {seconds}"), "it is 10 to 86,400"));
        }
        slow.after = Duration::from_secs(seconds);
    }
    Ok(slow)
}

/// What the drives did for each principal, and late reads.
pub(crate) fn pool(group: &Group) -> PoolIo {
    let (flow, lanes, hedges) = (group.flow(), group.lanes(), group.hedges());
    let principal = |principal: Principal| {
        let mut line = PrincipalIo {
            principal: principal.name().to_owned(),
            share: flow.shares.of(principal),
            requests: 0,
            bytes: 0,
            in_flight: 0,
            waiting: 0,
            waited: 0,
            wait_seconds: 0.0,
            wait_max_ms: 0.0,
        };
        for (_, usage) in lanes.iter().flatten().map(|lane| lane.usage[principal.index()]) {
            line.requests += usage.requests;
            line.bytes += usage.bytes;
            line.in_flight += usage.in_flight;
            line.waiting += usage.waiting;
            line.waited += usage.waited;
            line.wait_seconds += usage.wait_ns as f64 / 1e9;
            line.wait_max_ms = line.wait_max_ms.max(usage.wait_ns_max as f64 / 1e6);
        }
        line
    };
    PoolIo {
        principals: Principal::ALL.into_iter().map(principal).collect(),
        hedged_reads_percent: f64::from(flow.hedged_reads_ppm) / 10_000.0,
        late_reads: hedges.late,
        hedged_reads: hedges.hedged,
        hedged_reads_won: hedges.won,
        over_budget: hedges.over_budget,
        no_redundancy: hedges.no_redundancy,
        slow_drive_factor: flow.slow.factor,
        slow_drive_seconds: flow.slow.after.as_secs_f64(),
    }
}

/// How slow a drive is, in words.
pub(crate) fn slow_words(slow: raid::Slowness) -> String {
    let ms = |ns: u64| ns as f64 / 1e6;
    format!("slow: {:.1} ms where the others take {:.1} ms", ms(slow.median_ns), ms(slow.usual_ns))
}

/// The queue of `drive`.
pub(crate) fn drive(group: &Group, drive: &DriveStatus) -> Option<DriveIo> {
    let lane = group.lanes().into_iter().nth(usize::from(drive.slot.0))??;
    let ms = |ns: u64| ns as f64 / 1e6;
    Some(DriveIo {
        profile: lane.profile,
        depth: lane.depth,
        in_flight: lane.in_flight,
        waiting: lane.waiting,
        timed_reads: lane.punctuality.reads,
        late_reads: lane.punctuality.late,
        late_percent: f64::from(lane.punctuality.late_ppm) / 10_000.0,
        read_ms: (lane.punctuality.read_ns > 0).then(|| ms(lane.punctuality.read_ns)),
        slow: drive.slow.map(|slow| SlowDrive { latency_ms: ms(slow.median_ns), usual_ms: ms(slow.usual_ns) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decides R-SSD-01, R-SSD-04.
    #[test]
    fn dozens_are_built_in_and_each_is_found_by_its_model() {
        let settings = settings(None).unwrap();
        assert!(settings.profiles.len() >= 36, "{} profiles", settings.profiles.len());
        for (model, name) in [
            ("SAMSUNG MZQL21T9HCJR-00A07", "samsung pm9a3"),
            ("INTEL SSDPE2KX040T8", "intel p4510"),
            ("Micron_7450_MTFDKCB960TFR", "micron 7450"),
            ("ST16000NM001G-2KK103", "seagate exos"),
            ("QEMU HARDDISK", "qemu"),
            ("file on ext4", "file on a file system"),
            ("file on tmpfs", "file in memory"),
            ("Never Heard Of 9000", "unknown flash"),
        ] {
            assert_eq!(settings.profiles.of(model, false).name, name, "for {model}");
        }
    }

    #[test]
    fn a_folder_goes_before_what_is_built_in_and_a_hundred_are_fine() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |number: u32| {
            format!("[[profile]]\nname = \"own {number}\"\nmodels = [\"OWN {number}\"]\nclass = \"disk\"\n")
        };
        std::fs::write(folder.path().join("own.toml"), (0..100).map(entry).collect::<String>()).unwrap();
        let ext4 = "[[profile]]\nname = \"mine\"\nmodels = [\"file on ext4\"]\nclass = \"flash\"\ndepth = 7\nbackground_depth = 1\nbackground_depth_idle = 2\n";
        std::fs::write(folder.path().join("a.toml"), ext4).unwrap();
        let config = IoConfig { profiles: Some(folder.path().to_owned()), ..IoConfig::default() };
        let settings = settings(Some(&config)).unwrap();
        assert_eq!(settings.profiles.of("file on ext4", false).depth, 7);
        assert_eq!(settings.profiles.of("own 99", false).class, DriveClass::Disk);
    }

    #[test]
    fn what_is_wrong_is_said_and_where() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("bad.toml"),
            "[[profile]]\nname = \"x\"\nmodels = []\nclass = \"flash\"\ndepth = 0\n",
        )
        .unwrap();
        let config = IoConfig { profiles: Some(folder.path().to_owned()), ..IoConfig::default() };
        let problem = settings(Some(&config)).unwrap_err();
        let text = format!("{problem:?}");
        assert!(text.contains("bad.toml") && text.contains("depth is not 1 to 1,024"), "{text}");
        let shares = [("scrubb".to_owned(), 1)].into();
        let problem = settings(Some(&IoConfig { shares, ..IoConfig::default() })).unwrap_err();
        assert!(format!("{problem:?}").contains("scrubb"));
        for (factor, seconds, good) in [(Some(0), None, true), (Some(4), None, false), (Some(5), Some(9), false)] {
            let config = IoConfig { slow_drive_factor: factor, slow_drive_seconds: seconds, ..IoConfig::default() };
            assert_eq!(settings(Some(&config)).is_ok(), good, "{factor:?} {seconds:?}");
        }
    }
}
